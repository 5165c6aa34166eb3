using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using NUnit.Framework;
using Vmm.Tests.Fakes;

namespace Vmm.Tests.Integration.Hostile;

/// <summary>A guest that attacks its VMM: payloads that make an attack once for each 'r' on their serial port, see that their other CPU runs and
/// that their devices work, and say so (firmware/payloads/hostile.inc).</summary>
public abstract class HostileGuestTest : KvmTest
{
    private const string Ready = "ready\n";
    private const string RoundOver = "round over\n";

    // Garbage is collected after 2 MiB; the rest is what a runtime needs now and then.
    private const long Slack = 5 << 20;

    // Descriptors and threads of the runtime's own: its pool has a few more under load. What an attack leaves behind, it leaves behind a thousand times.
    private const int Spare = 10;

    // The budget of a process is 120 lines and one more each second, and the first line of each kind.
    private const int LinesAtOnce = 160;

    /// <summary>The devices that need nothing of the host but a directory: those whose back-ends are ours.</summary>
    private protected string[] OwnDevices()
    {
        string disk = Path.Combine(Scratch, "disk");
        using (FileStream file = File.Create(disk))
            file.SetLength(1 << 20);
        string net = Path.Combine(Scratch, "net");
        (int local, int remote) = (FreePort(), FreePort());
        StartVmm("backend", "net", "--socket-path", net, "--socket-udp", $"local=127.0.0.1:{local},remote=127.0.0.1:{remote}");
        return
        [
            "--disk", $"path={disk}", "--rng", "src=/dev/urandom", "--console", $"file={Path.Combine(Scratch, "console")}",
            "--vsock", $"cid=3,socket={Path.Combine(Directory.CreateDirectory(Path.Combine(Scratch, "vsock")).FullName, "socket")}",
            "--net", $"socket={net}", "--fs", $"tag=own,source={Directory.CreateDirectory(Path.Combine(Scratch, "share")).FullName}",
        ];
    }

    /// <summary>Those, and devices of another's back-end, which works no ring here: a file system, and one of a type of which nothing is known.</summary>
    private protected string[] AllDevices()
    {
        string fs = Path.Combine(Scratch, "fs");
        Keep(new FakeBackend(fs) { Config = new byte[40] }.Start());
        string generic = Path.Combine(Scratch, "generic");
        Keep(new FakeBackend(generic) { Config = new byte[136] }.Start());
        return [.. OwnDevices(), "--fs", $"tag=x,socket={fs}", "--vhost-user", $"type=input,socket={generic}"];
    }

    /// <summary>Has the guest make an attack, and sees that it costs nobody else anything: memory, descriptors, threads, a log without end.</summary>
    /// <param name="payload">The payload.</param>
    /// <param name="attack">The attack's name.</param>
    /// <param name="rounds">How often it is made after the first time, from which on nothing may grow.</param>
    /// <param name="options">Of <c>vmm run</c>.</param>
    private protected void Attack(string payload, string attack, int rounds, params string[] options)
    {
        if (!VmmProcess.IsNative)
            Assert.Ignore("VMM_BINARY names no binary: what it does with memory is what counts");
        var watch = Stopwatch.StartNew();
        VmmProcess process = StartAttacker(payload, attack, options);
        MakeRound(process, 1);
        int[] processes = [process.Id, .. ProcFs.ProcessesWithEnvironment(VmmProcess.Mark).Where(id => id != process.Id)];
        long[] memory = [.. processes.Select(ProcFs.OwnMemory)];
        int[] descriptors = [.. processes.Select(id => ProcFs.Descriptors(id).Length)];
        int[] threads = [.. processes.Select(ProcFs.Threads)];

        for (int round = 2; round <= rounds + 1; round++)
            MakeRound(process, round);

        for (int i = 0; i < processes.Length; i++)
        {
            int id = processes[i];
            string name = File.ReadAllText($"/proc/{id}/cmdline").Replace('\0', ' ');
            Assert.That(ProcFs.OwnMemory(id), Is.LessThan(memory[i] + Slack), name);
            Assert.That(() => ProcFs.Descriptors(id), Has.Length.LessThanOrEqualTo(descriptors[i] + Spare).After(5000, 50), name);
            Assert.That(() => ProcFs.Threads(id), Is.LessThanOrEqualTo(threads[i] + Spare).After(5000, 50), name);
        }
        process.Send("p"u8);
        VmmResult result = process.WaitForEnd();
        Assert.That(result.Output, Is.EqualTo(Ready + string.Concat(Enumerable.Repeat(RoundOver, rounds + 1))), result.Errors);
        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        CheckErrors(result.Errors, processes.Length * (LinesAtOnce + (int)watch.Elapsed.TotalSeconds));
    }

    /// <summary>Starts a payload that waits for its first 'r'.</summary>
    private protected VmmProcess StartAttacker(string payload, string attack, params string[] options)
    {
        string[] memory = options.Contains("--memory") ? [] : ["--memory", "64M"];
        VmmProcess process = Start(payload, [.. memory, "--cpus", "2", "--cmdline", attack, .. options]);
        process.WaitForOutput(Ready);
        return process;
    }

    /// <summary>Sees that an error output is one of a program in order: a bounded number of lines, none of them of an exception that nobody caught.</summary>
    private protected static void CheckErrors(string errors, int most)
    {
        Assert.That(errors.Count(character => character == '\n'), Is.LessThanOrEqualTo(most), errors);
        Assert.That(errors, Does.Not.Contain("   at ").And.Not.Contain("Unhandled exception"), errors);
    }

    private static void MakeRound(VmmProcess process, int number)
    {
        process.Send("r"u8);
        process.WaitForOutput("\n", number + 1);   // of the round, or of what went wrong
        if (!process.Output.EndsWith(RoundOver, StringComparison.Ordinal))
            throw new AssertionException($"round {number}: {process.Output}\n{process.Errors}");
    }

    private static int FreePort()
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        return ((IPEndPoint)socket.LocalEndPoint!).Port;
    }
}
