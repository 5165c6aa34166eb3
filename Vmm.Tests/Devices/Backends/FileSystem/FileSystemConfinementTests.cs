using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration;
using Vmm.Tests.Integration.Backends;
using Vmm.Vhost.Native.Confinement;
using static Vmm.Tests.Conformance.FuseClient;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>Whether anything leads out of the directory for somebody who has taken the process over.</summary>
[Category("Confinement")]
public class FileSystemConfinementTests : FileSystemTest
{
    private const int Eperm = 1, Eacces = 13;

    // What the process may call, and other back-ends may not.
    private static readonly string[] s_ownCalls =
    [
        "openat", "openat2", "statx", "getdents64", "unlinkat", "renameat2", "mknodat", "utimensat", "setxattr", "setgroups", "capset", "fchownat", "fchmodat", "linkat",
        "symlinkat", "mkdirat", "copy_file_range", "capget",
    ];

    private string _injector = "";

    [SetUp]
    public void Prepare()
    {
        if (!VmmProcess.IsNative)
            Assert.Ignore("only the native binary is confined: set VMM_BINARY");
        _injector = SystemCallInjector.Build();
    }

    [Test]
    public void Threads_HaveAFilterAndFewPrivileges()
    {
        VmmProcess process = StartWithThreads(out _);
        string capabilities = Environment.IsPrivilegedProcess ? "00000000880000db" : "0000000000000000";
        Assert.That(ProcessThreads.Of(process.Id), Has.Length.GreaterThanOrEqualTo(6), "the main one, the runtime's two, two queues' and one of the pool");
        foreach (int thread in ProcessThreads.Of(process.Id))
        {
            string status = File.ReadAllText($"/proc/{process.Id}/task/{thread}/status");
            Assert.That(status, Does.Contain("NoNewPrivs:\t1\n").And.Contain("Seccomp:\t2\n").And.Contain($"CapPrm:\t{capabilities}\n")
                .And.Contain($"CapEff:\t{capabilities}\n").And.Contain("CapInh:\t0000000000000000\n").And.Contain("Groups:\t \n"), status);
        }
    }

    [Test]
    public void Escapes_OnEveryThread_AreRefused()
    {
        VmmProcess process = StartWithThreads(out FuseGuest guest);
        InjectedCall[] calls = [.. EscapeAttempts.Possible.Concat(EscapeAttempts.Others).Where(call => !s_ownCalls.Contains(call.Name))];
        Assert.That(calls, Has.Length.GreaterThan(90));
        foreach (int thread in ProcessThreads.Of(process.Id).Where(thread => ProcessThreads.WaitsSoon(process.Id, thread)))
        {
            long?[] results = SystemCallInjector.Calls(_injector, thread, calls);
            for (int i = 0; i < calls.Length; i++)
                Assert.That(results[i], Is.EqualTo(-Eperm).Or.EqualTo(long.MinValue), $"{calls[i]}");
        }
        Assert.That(guest.TryAttributes(FuseGuest.Root), Is.Zero, "it serves on");
    }

    [TestCase(false)]
    [TestCase(true)]
    public void Files_Elsewhere_AreOutOfReach(bool isReadOnly)
    {
        if (Landlock.Version < 2)
            Assert.Ignore("this kernel has no Landlock of version 2");
        string outside = Path.Combine(Scratch, "outside");
        File.WriteAllText(outside, "secret");
        File.WriteAllText(In("inside"), "");
        VmmProcess process = StartWithThreads(out _, isReadOnly ? ["--readonly"] : []);
        foreach (int thread in ProcessThreads.Of(process.Id).Where(thread => ProcessThreads.WaitsSoon(process.Id, thread)))
        {
            InjectedCall[] refused =
            [
                new("openat", "-100", "@/etc/hostname", "0"),
                new("openat", "-100", $"@{outside}", "0"),
                new("openat", "-100", $"@{outside}", "1"),
                new("openat", "-100", $"@{Scratch}", "0x10000"),
                new("openat", "-100", "@../mem", "2"),     // of /proc/self, by the current directory
                new("openat", "-100", "@/dev/null", "2"),
            ];
            InjectedCall[] changing =
            [
                new("openat", "-100", $"@{outside}2", "0x41", "0600"),
                new("unlinkat", "-100", $"@{outside}", "0"),
                new("renameat2", "-100", $"@{outside}", "-100", $"@{outside}2", "0"),
                new("mkdirat", "-100", $"@{outside}2", "0700"),
                new("mknodat", "-100", $"@{outside}2", "0x1180", "0"),
                new("symlinkat", "@/etc/shadow", "-100", $"@{outside}2"),
            ];
            long?[] results = SystemCallInjector.Calls(_injector, thread, refused);
            for (int i = 0; i < refused.Length; i++)
                Assert.That(results[i], Is.EqualTo(-Eacces), $"{refused[i]}");
            results = SystemCallInjector.Calls(_injector, thread, changing);
            for (int i = 0; i < changing.Length; i++)
                Assert.That(results[i], Is.EqualTo(i == 0 ? -Eacces : isReadOnly ? -Eperm : -Eacces), $"{changing[i]}");
            // And into the directory nothing can be brought, nor out of it.
            long? moved = SystemCallInjector.Call(_injector, thread, "renameat2", "-100", $"@{In("inside")}", "-100", $"@{outside}2", "0");
            Assert.That(moved, Is.EqualTo(-Eacces).Or.EqualTo(-18).Or.EqualTo(isReadOnly ? -Eperm : -Eacces));
            long? inside = SystemCallInjector.Call(_injector, thread, "openat", "-100", $"@{In("inside")}", "2");
            Assert.That(inside, isReadOnly ? Is.EqualTo(-Eacces) : Is.Not.Negative, "what it is for");
        }
        Assert.That(File.ReadAllText(outside), Is.EqualTo("secret"));
    }

    // With all kinds of threads: of queues, of the pool, and the one that waits for locks.
    private VmmProcess StartWithThreads(out FuseGuest guest, params string[] options)
    {
        VmmProcess process = Serve(options);
        FuseGuest one = guest = Keep(new FuseGuest(SocketPath));
        guest.Demand(50, FuseGuest.Root, Bytes(0UL));
        Eventually.True(() => ProcessThreads.Of(process.Id).All(thread => ProcessThreads.IsWaiting(process.Id, thread)) || one.TryAttributes(FuseGuest.Root) != 0, () => "it is not at rest");
        return process;
    }
}
