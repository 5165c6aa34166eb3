using System.Runtime.Versioning;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration;
using Vmm.Tests.Integration.Backends;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.Native.Confinement;
using static Vmm.Tests.Conformance.FuseClient;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>Whether anything leads out of the directory for somebody who has taken the process over.</summary>
[Category("Confinement")]
public class FileSystemConfinementTests : FileSystemTest
{
    private const int Eperm = 1, Enoent = 2, Eacces = 13, Estale = 116;

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

    [TestCase("", "880000db")]
    [TestCase("--no-privileged-files", "000000db")]
    [TestCase("--readonly", "00000002")]
    public void Threads_HaveAFilterAndFewPrivileges(string option, string ofRoot)
    {
        VmmProcess process = StartWithThreads(out _, option.Length > 0 ? [option] : []);
        string capabilities = Environment.IsPrivilegedProcess ? $"00000000{ofRoot}" : "0000000000000000";
        Assert.That(ProcessThreads.Of(process.Id), Has.Length.GreaterThanOrEqualTo(6), "the main one, the runtime's two, two queues' and one of the pool");
        foreach (int thread in ProcessThreads.Of(process.Id))
        {
            string status = File.ReadAllText($"/proc/{process.Id}/task/{thread}/status");
            Assert.That(status, Does.Contain("NoNewPrivs:\t1\n").And.Contain("Seccomp:\t2\n").And.Contain($"CapPrm:\t{capabilities}\n")
                .And.Contain($"CapEff:\t{capabilities}\n").And.Contain("CapInh:\t0000000000000000\n").And.Contain("Groups:\t \n"), status);
        }
    }

    // Nobody can confine a thread that was there before, here one of a library. Root's process looks for such threads while it still sees /proc.
    [Test]
    public void Start_WithAThreadThatCannotBeConfined_IsRefused()
    {
        string source = Path.Combine(Scratch, "thread.c"), library = Path.Combine(Scratch, "thread.so");
        File.WriteAllText(source, """
            #include <pthread.h>
            #include <unistd.h>
            static void *sleep_on(void *nothing) { for (;;) pause(); return nothing; }
            __attribute__((constructor)) static void begin(void) { pthread_t thread; pthread_create(&thread, 0, sleep_on, 0); }
            """);
        (int status, string output) = HostCommand.TryRun("/bin/sh", "-c", $"cc -shared -fPIC -o {library} {source} -lpthread");
        if (status != 0)
            Assert.Ignore($"a C compiler is needed: {output}");
        string[] command = [.. VmmProcess.Command, "backend", "fs", "--socket-path", SocketPath, "--shared-dir", Shared];
        (status, output) = HostCommand.TryRun("timeout", ["--kill-after=1", "10", "env", $"LD_PRELOAD={library}", .. command]);
        Assert.That(status, Is.EqualTo(1), output);
        Assert.That(output, Does.Contain("cannot confine all of the threads"));
    }

    [Test]
    public void Escapes_OnEveryThread_AreRefused()
    {
        VmmProcess process = StartWithThreads(out FuseGuest guest);
        InjectedCall[] calls = [.. EscapeAttempts.Possible.Concat(EscapeAttempts.Others).Where(call => !s_ownCalls.Contains(call.Name) && !IsCopy(call))];
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
                new("openat", "-100", "@../mem", "2"),     // of /proc/self, if something led there from the current directory
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
                Assert.That(results[i], Is.EqualTo(-Eacces).Or.EqualTo(-Enoent), $"{refused[i]}");
            results = SystemCallInjector.Calls(_injector, thread, changing);
            for (int i = 0; i < changing.Length; i++)
                Assert.That(results[i], Is.EqualTo(i > 0 && isReadOnly ? -Eperm : -Eacces).Or.EqualTo(i > 0 && isReadOnly ? -Eperm : -Enoent), $"{changing[i]}");
            // And into the directory nothing can be brought, nor out of it.
            long? moved = SystemCallInjector.Call(_injector, thread, "renameat2", "-100", $"@{Inside("inside")}", "-100", $"@{outside}2", "0");
            Assert.That(moved, Is.EqualTo(-Eacces).Or.EqualTo(-Enoent).Or.EqualTo(-18).Or.EqualTo(isReadOnly ? -Eperm : -Eacces));
            long? inside = SystemCallInjector.Call(_injector, thread, "openat", "-100", $"@{Inside("inside")}", "2");
            Assert.That(inside, isReadOnly ? Is.EqualTo(-Eacces) : Is.Not.Negative, "what it is for");
        }
        Assert.That(File.ReadAllText(outside), Is.EqualTo("secret"));
    }

    // Root's process has the directory as a mount of its own, and Landlock of Linux 6.18 allows what is moved out of a mount as if it were its root.
    [Test]
    public void Directory_ThatTheHostMovesOut_IsOutOfReach()
    {
        RequireRoot();
        Directory.CreateDirectory(In("moved/below"));
        File.WriteAllText(In("file"), "");
        string outside = Directory.CreateDirectory(Path.Combine(Scratch, "outside")).FullName, place = Path.Combine(outside, "moved");
        using FuseGuest guest = Begin();
        ulong moved = guest.Node("moved"), below = guest.Node("moved/below"), opened = U64(guest.Demand(27, moved, Bytes(0U, 0U), 16), 0);

        Directory.Move(In("moved"), place);
        foreach (string directory in (string[])[place, Path.Combine(place, "below")])
            File.WriteAllText(Path.Combine(directory, "secret"), "secret");
        foreach (ulong node in (ulong[])[moved, below])
        {
            (string Name, long Error)[] results =
            [
                ("lookup", guest.Fuse.Lookup(node, "secret", out _, out _)), ("create", guest.TryCreate(node, "new")), ("mkdir", guest.Fuse.TryMakeDirectory(node, "new")),
                ("unlink", guest.Unlink(node, "secret")), ("rename from", guest.Rename(node, "secret", FuseGuest.Root, "got")), ("rename to", guest.Rename(FuseGuest.Root, "file", node, "file")),
                ("opendir", guest.Try(27, node, Bytes(0U, 0U), 16)), ("set mode", guest.Try(4, node, [.. Bytes(1U, 0U), .. new byte[80]], FuseGuest.AttributesSize)),
                ("set xattr", guest.SetXattr(node, "user.a", [1])),
            ];
            Assert.That(results.Where(result => result.Error != -Estale), Is.Empty);
        }
        Assert.That(guest.Try(28, moved, [.. Bytes(opened, 0UL), .. Bytes(4096U, 0U), .. new byte[16]], 4096), Is.EqualTo(-Estale), "a directory that was open");
        Assert.That(Directory.GetFileSystemEntries(outside, "*", SearchOption.AllDirectories).Order(), Is.EqualTo(new[] { place, $"{place}/below", $"{place}/below/secret", $"{place}/secret" }));

        Directory.Move(place, In("back"));
        Assert.That(guest.Fuse.Lookup(moved, "secret", out _, out _), Is.Zero);
    }

    // Landlock says nothing of owners, modes and times. Root's process has no way to the path.
    [Test]
    [SupportedOSPlatform("linux")]
    public void Owners_OfFilesElsewhere_AreOutOfRootsReach()
    {
        RequireRoot();
        string outside = Path.Combine(Scratch, "outside");
        File.WriteAllText(outside, "");
        File.SetUnixFileMode(outside, UnixFileMode.UserRead);
        VmmProcess process = StartWithThreads(out _);
        InjectedCall[] calls =
        [
            new("fchmodat", "-100", $"@{outside}", "0777"), new("fchownat", "-100", $"@{outside}", "1", "1", "0"), new("utimensat", "-100", $"@{outside}", "0", "0"),
            new("setxattr", $"@{outside}", "@user.a", "@b", "1", "0"), new("fchmodat", "-100", $"@../../../../..{outside}", "0777"), new("statx", "-100", $"@{outside}", "0", "0", "0"),
        ];
        long?[] results = SystemCallInjector.Calls(_injector, process.Id, calls);
        for (int i = 0; i < calls.Length; i++)
            Assert.That(results[i], Is.EqualTo(-Enoent), $"{calls[i]}");
        Assert.That(File.GetUnixFileMode(outside), Is.EqualTo(UnixFileMode.UserRead));
    }

    // /dev/null once more: it would do no harm.
    [TestCase(true)]
    [TestCase(false)]
    public void Devices_MadeInTheDirectory_OpenNothing(bool mayMakeThem)
    {
        RequireRoot();
        VmmProcess process = StartWithThreads(out _, mayMakeThem ? [] : ["--no-privileged-files"]);
        // overlayfs has no such nodes of its own.
        long whiteout = HostCommand.TryRun("mknod", In("of the host"), "c", "0", "0").Status == 0 ? 0 : -Eperm;
        const string characterDevice = "0020600", blockDevice = "0060600", pipe = "0010600", null_ = "0x103";
        long?[] results = SystemCallInjector.Calls(_injector, process.Id,
        [
            new("mknodat", "-100", "@/character", characterDevice, null_), new("openat", "-100", "@/character", "2"),
            new("mknodat", "-100", "@/block", blockDevice, null_), new("openat", "-100", "@/block", "2"),
            new("mknodat", "-100", "@/whiteout", characterDevice, "0"), new("mknodat", "-100", "@/pipe", pipe, "0"), new("mknodat", "-100", "@/file", "0600", "7"),
        ]);
        Assert.That(results, Is.EqualTo(mayMakeThem ? [0, -Eacces, 0, -Eacces, whiteout, 0, 0] : new long?[] { -Eperm, -Enoent, -Eperm, -Enoent, whiteout, 0, 0 }));
    }

    // The directory that vmm exec shares.
    [Test]
    public void WholeFileSystem_SharedForReading_HasNoDevicesAndNothingOfTheKernel()
    {
        if (Landlock.Version == 0)
            Assert.Ignore("this kernel has no Landlock");
        VmmProcess process = StartBackend("fs", "--shared-dir", "/", "--readonly");
        // It listens before it is confined.
        Eventually.True(() => ProcessThreads.Status(process.Id, process.Id).Contains("Seccomp:\t2\n", StringComparison.Ordinal), () => "it is not confined");
        Eventually.True(() => ProcessThreads.WaitsSoon(process.Id, process.Id), () => "it is not at rest");
        string[] refused = ["/dev/null", "/dev/ptmx", "/proc/version", "/proc/self/mem", "/sys/kernel/mm/transparent_hugepage/enabled"];
        long?[] results = SystemCallInjector.Calls(_injector, process.Id,
            [.. refused.Select(path => new InjectedCall("openat", "-100", $"@{path}", "0")), new("openat", "-100", "@/etc/passwd", "0"), new("openat", "-100", "@/", "0x10000")]);
        for (int i = 0; i < refused.Length; i++)
            Assert.That(results[i], Is.EqualTo(-Eacces), refused[i]);
        Assert.That(results[^2..], Is.All.Not.Negative, "what it is for");
    }

    [Test]
    public void ReadOnly_Calls_AreOfReadersOnly()
    {
        VmmProcess process = StartWithThreads(out _, "--readonly");
        InjectedCall[] calls =
        [
            new("syncfs", "0"), new("fsync", "0"), new("fdatasync", "0"), new("flock", "0", "6"), new("fcntl", "0", "36", "0"), new("fcntl", "0", "1030", "0"), new("setfsuid", "0"),
            new("mknodat", "-100", "@a", "0", "0"),
        ];
        Assert.That(SystemCallInjector.Calls(_injector, process.Id, calls), Is.All.EqualTo(-Eperm));
    }

    // F_DUPFD_CLOEXEC: the back-end closes a copy of a file when a program of the guest's has closed that.
    private static bool IsCopy(InjectedCall call) => call is { Name: "fcntl", Arguments: [_, "1030", ..] };

    // The directory is the root of root's process, where the kernel mounts it for that alone.
    private string Inside(string name) => Environment.IsPrivilegedProcess ? $"/{name}" : In(name);

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
