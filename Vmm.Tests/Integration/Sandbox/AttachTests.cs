using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Guest;
using Vmm.Tests.Integration.Backends;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Integration.Sandbox;

/// <summary>What <c>vmm exec --attach</c> can still do while its command runs, as a guest would try that takes it over. The guest is this process.</summary>
[Category("Confinement")]
public class AttachTests : VmmTest
{
    private const int Eperm = 1, Enosys = 38;

    private readonly string _name = $"test-{Guid.NewGuid():N}"[..20];

    [SetUp]
    public void RequireTheBinary()
    {
        if (!VmmProcess.IsNative)
            Assert.Ignore("only the native binary is confined: set VMM_BINARY");
    }

    [Test]
    public void Escapes_OnEveryThread_AreRefusedAndTheCommandGoesOn()
    {
        string injector = SystemCallInjector.Build();
        InjectedCall[] calls = [.. EscapeAttempts.Possible, .. EscapeAttempts.Others, new("sendmsg", "0", "0", "0"), new("connect", "0", "0", "0")];
        (VmmProcess process, UnixSocket agent) = Attach();
        int[] threads = ProcessThreads.Of(process.Id);
        Assert.That(threads, Has.Length.EqualTo(3), "the main one, and the runtime's for finalizers and for signals");
        foreach (int thread in threads)
        {
            Assert.That(ProcessThreads.Status(process.Id, thread), Does.Contain("NoNewPrivs:\t1\n").And.Contain("Seccomp:\t2\n")
                .And.Contain("CapPrm:\t0000000000000000\n").And.Contain("CapEff:\t0000000000000000\n"));
            Assert.That(ProcessThreads.WaitsSoon(process.Id, thread));
            long?[] results = SystemCallInjector.Calls(injector, thread, calls);
            for (int i = 0; i < calls.Length; i++)
                Assert.That(results[i], Is.EqualTo(-Eperm).Or.EqualTo(long.MinValue), $"{calls[i]} in {ProcessThreads.Name(process.Id, thread)}");
            Assert.That(SystemCallInjector.Call(injector, thread, "clone3", "0", "0"), Is.EqualTo(-Enosys));
        }
        Exit(agent, 5);
        Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(5, "to standard output", "")));
    }

    [Test]
    public void Off_NothingIsGivenUp()
    {
        (VmmProcess process, UnixSocket agent) = Attach("--sandbox", "off");
        Assert.That(ProcessThreads.Status(process.Id, process.Id), Does.Contain("NoNewPrivs:\t0\n").And.Contain("Seccomp:\t0\n"));
        Exit(agent, 6);
        Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(6, "to standard output", "")));
    }

    // A process whose command runs, and its guest's agent.
    private (VmmProcess Process, UnixSocket Agent) Attach(params string[] options)
    {
        GuestDirectory directory = Keep(GuestDirectory.Claim(_name));
        UnixListener listener = Keep(UnixListener.Listen(directory.Socket));
        VmmProcess process = StartVmm(["exec", "--attach", _name, .. options, "--", "true"]);
        Poll.Wait([new PollEntry(listener, PollEvents.Readable)], (int)VmmProcess.Deadline.TotalMilliseconds);
        UnixSocket agent = Keep(listener.TryAccept()!);
        agent.WriteAll([.. "OK 1\n"u8, .. Frame(AgentFrameType.Hello, 0, Numbers(AgentFrame.Magic, AgentFrame.Version, 0, 0, 0)), .. Frame(AgentFrameType.Started, 0, Numbers(1)),
            .. Frame(AgentFrameType.Data, AgentStream.Output, "to standard output"u8.ToArray())], "vmm");
        process.WaitForOutput("to standard output");
        return (process, agent);
    }

    private static void Exit(UnixSocket agent, uint status) => agent.WriteAll(
        [.. Frame(AgentFrameType.End, AgentStream.Output, []), .. Frame(AgentFrameType.End, AgentStream.Error, []), .. Frame(AgentFrameType.Exit, 0, Numbers(0, status, 0))], "vmm");

    private static byte[] Frame(AgentFrameType type, AgentStream stream, byte[] data)
    {
        var head = new AgentFrame(type, stream, 0, (uint)data.Length);
        return [.. MemoryMarshal.AsBytes(new ReadOnlySpan<AgentFrame>(in head)), .. data];
    }

    private static byte[] Numbers(params uint[] numbers) => MemoryMarshal.AsBytes<uint>(numbers).ToArray();
}
