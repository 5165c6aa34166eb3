using System.Diagnostics;
using NUnit.Framework;
using Vmm.Tests.Integration;

namespace Vmm.Tests.Conformance;

/// <summary>A vhost-user daemon of somebody else's that listens on a socket. Whatever becomes of the test, it is killed.</summary>
internal sealed class PeerDaemon : IDisposable
{
    private const string Virtiofsd = "/usr/lib/qemu/virtiofsd";
    private const string StorageDaemon = "/usr/bin/qemu-storage-daemon";
    private const string TestPmd = "/usr/bin/dpdk-testpmd";

    // /proc/net/unix: __SO_ACCEPTCON, on a socket that listens.
    private const string Listening = "00010000";

    private readonly string _program;
    private readonly string[] _arguments;
    private Process _process;
    private OutputCapture _output;
    private OutputCapture _errors;

    private PeerDaemon(string program, string socket, params string[] arguments)
    {
        _program = program;
        _arguments = arguments;
        SocketPath = socket;
        (_process, _output, _errors) = Launch();
        WaitUntilItListens();
    }

    /// <summary>Where it listens.</summary>
    public string SocketPath { get; }

    /// <summary>What it said, for the message of a failed test.</summary>
    public string Said => $"{_program}{(_process.HasExited ? $" ended with status {_process.ExitCode}" : "")}\n{VmmProcess.Show(_output.Text, _errors.Text)}";

    /// <summary>QEMU's C virtiofsd shares <paramref name="directory"/>. It ends with its first connection.</summary>
    public static PeerDaemon StartVirtiofsd(string scratch, string directory, params string[] options)
    {
        Require(Virtiofsd);
        if (!Environment.IsPrivilegedProcess)
            Assert.Ignore("needs root: virtiofsd puts itself into a sandbox");
        string socket = Path.Combine(scratch, "fs.sock");
        return new PeerDaemon(Virtiofsd, socket, [$"--socket-path={socket}", "-o", $"source={directory}", "-o", "sandbox=chroot", "-f", .. options]);
    }

    /// <summary>qemu-storage-daemon exports <paramref name="image"/> as a disk with two queues.</summary>
    public static PeerDaemon StartStorageDaemon(string scratch, string image)
    {
        Require(StorageDaemon);
        string socket = Path.Combine(scratch, "blk.sock");
        return new PeerDaemon(
            StorageDaemon,
            socket,
            "--blockdev", $"driver=file,node-name=file,filename={image},discard=unmap",
            "--blockdev", "driver=raw,node-name=disk,file=file,discard=unmap",
            "--export", $"type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={socket},writable=on,num-queues=2");
    }

    /// <summary>DPDK's testpmd sends every packet back on the queue pair on which it came.</summary>
    public static PeerDaemon StartTestPmd(string scratch)
    {
        Require(TestPmd);
        string socket = Path.Combine(scratch, "net.sock");
        // Both threads on one processor: there may be no more, and its worker polls without end.
        return new PeerDaemon(
            TestPmd,
            socket,
            "--no-huge", "-m", "256", "--no-pci", "--no-telemetry", "--lcores", "0@0,1@0",
            "--vdev", $"net_vhost0,iface={socket},queues=2", "--",
            "--total-num-mbufs=8192", "--rxq=2", "--txq=2", "--forward-mode=io", "--auto-start");
    }

    /// <summary>Ends it as a crash does (SIGKILL).</summary>
    public void Kill()
    {
        if (!_process.HasExited)
            _process.Kill();
        _process.WaitForExit();
    }

    /// <summary>Starts it again where it listened before.</summary>
    public void StartAgain()
    {
        Kill();
        _process.Dispose();
        (_process, _output, _errors) = Launch();
        WaitUntilItListens();
    }

    /// <summary>Whether it ends by itself within <paramref name="time"/>.</summary>
    public bool EndsWithin(TimeSpan time) => _process.WaitForExit(time);

    public void Dispose()
    {
        Kill();
        _process.Dispose();
    }

    private static void Require(string program)
    {
        if (!File.Exists(program))
            Assert.Ignore($"{program} is missing; run scripts/setup test");
    }

    private (Process Process, OutputCapture Output, OutputCapture Errors) Launch()
    {
        var start = new ProcessStartInfo(_program, _arguments)
        {
            RedirectStandardInput = true,   // stays open: testpmd ends at its end
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["RUNTIME_DIRECTORY"] = Path.GetDirectoryName(SocketPath);   // of testpmd's own files
        Process process = Process.Start(start)!;
        return (
            process,
            new OutputCapture(buffer => process.StandardOutput.BaseStream.Read(buffer), start: true),
            new OutputCapture(buffer => process.StandardError.BaseStream.Read(buffer), start: true));
    }

    // Without connecting: virtiofsd takes one connection and no more.
    private void WaitUntilItListens()
    {
        for (long start = Stopwatch.GetTimestamp(); !IsListening(); Thread.Sleep(5))
        {
            if (!_process.HasExited && Stopwatch.GetElapsedTime(start) < VmmProcess.Deadline)
                continue;
            Kill();
            throw new AssertionException($"nobody listens on {SocketPath}: {Said}");
        }
    }

    private bool IsListening()
    {
        foreach (string line in File.ReadLines("/proc/net/unix"))
        {
            string[] fields = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (fields.Length > 7 && fields[3] == Listening && fields[7] == SocketPath)
                return true;
        }
        return false;
    }
}
