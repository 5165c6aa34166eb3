using System.Diagnostics;
using NUnit.Framework;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>A program of the host's that waits for a vmm on a socket: virtiofsd, qemu-storage-daemon, dpdk-testpmd. Killed when disposed.</summary>
internal sealed class HostDaemon : IDisposable
{
    private readonly string _program;
    private readonly string[] _arguments;
    private readonly string[] _sockets;
    private Process _process = null!;
    private OutputCapture _output = null!;
    private OutputCapture _errors = null!;

    /// <summary>Starts it, and waits until its sockets are there.</summary>
    public HostDaemon(string[] sockets, string program, params string[] arguments)
    {
        (_program, _arguments, _sockets) = (program, arguments, sockets);
        Start();
    }

    /// <summary>Its process id.</summary>
    public int Id => _process.Id;

    /// <summary>Whether it runs.</summary>
    public bool IsRunning => !_process.HasExited;

    /// <summary>Shares a directory, by QEMU's virtiofsd.</summary>
    public static HostDaemon Virtiofsd(string socket, string directory) => new(
        [socket], "/usr/lib/qemu/virtiofsd", $"--socket-path={socket}", "-f", "-o", $"source={directory}", "-o", "sandbox=chroot");

    /// <summary>Gives out a file of <paramref name="size"/> bytes, which is made if it is not there, as a disk with two queues.</summary>
    /// <param name="socket">Where it listens.</param>
    /// <param name="file">The file.</param>
    /// <param name="size">Its size.</param>
    /// <param name="perSecond">How many requests it does in a second; 0 for as many as it can.</param>
    /// <param name="requestSize">A larger request counts as several of this size in bytes; 0: each request counts as one.</param>
    public static HostDaemon Disk(string socket, string file, long size, int perSecond = 0, int requestSize = 0) => new(
        [socket], "qemu-storage-daemon", [.. ThrottledDisk(file, size, perSecond, requestSize),
        "--export", $"type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={socket},writable=on,num-queues=2"]);

    /// <summary>Options of qemu-storage-daemon for its node "disk": a file of <paramref name="size"/> bytes, which is made if it is not there.</summary>
    /// <param name="file">The file.</param>
    /// <param name="size">Its size.</param>
    /// <param name="perSecond">How many requests it does in a second; 0 for as many as it can.</param>
    /// <param name="requestSize">A larger request counts as several of this size in bytes; 0: each request counts as one.</param>
    public static string[] ThrottledDisk(string file, long size, int perSecond, int requestSize)
    {
        using (FileStream image = File.OpenWrite(file))
            image.SetLength(size);
        return
        [
            "--object", $"{{\"qom-type\":\"throttle-group\",\"id\":\"limits\",\"limits\":{{\"iops-total\":{perSecond},\"iops-size\":{requestSize}}}}}",
            "--blockdev", $"driver=file,node-name=file,filename={file}", "--blockdev", "driver=raw,node-name=raw,file=file",
            "--blockdev", "driver=throttle,node-name=disk,throttle-group=limits,file=raw",
        ];
    }

    /// <summary>Sends every packet back on the queue pair on which it came, of which there are two.</summary>
    public static HostDaemon PacketEcho(string socket) => new(
        // Its own files go beside the socket. Both threads on one processor: there may be no more, and one of them polls without end.
        [socket], "env", $"RUNTIME_DIRECTORY={Path.GetDirectoryName(socket)}", "dpdk-testpmd", "--no-huge", "-m", "256", "--no-pci", "--no-telemetry",
        "--lcores", "0@0,1@0", "--vdev", $"net_vhost0,iface={socket},queues=2",
        "--", "--total-num-mbufs=8192", "--rxq=2", "--txq=2", "--forward-mode=io", "--auto-start");

    /// <summary>Waits until it has ended by itself.</summary>
    /// <returns>Its exit status.</returns>
    public int WaitForEnd()
    {
        _process.WaitForEnd(_program);
        return _process.ExitCode;
    }

    /// <summary>Kills it with signal 9.</summary>
    public void Kill() => _process.KillAndWait($"{_program}, which was killed,");

    /// <summary>Starts it again.</summary>
    public void Start()
    {
        foreach (string socket in _sockets)
            File.Delete(socket);
        Process process = HostCommand.Start(_program, _arguments);
        _process = process;
        _output = new OutputCapture(buffer => process.StandardOutput.BaseStream.Read(buffer), start: true);
        _errors = new OutputCapture(buffer => process.StandardError.BaseStream.Read(buffer), start: true);
        Eventually.True(() => _process.HasExited || Array.TrueForAll(_sockets, File.Exists), Describe);
        Assert.That(_process.HasExited, Is.False, Describe());
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Kill();
        _process.Dispose();
    }

    private string Describe() => $"{_program} {string.Join(' ', _arguments)}\n{VmmProcess.Show(_output.Text, _errors.Text)}";
}
