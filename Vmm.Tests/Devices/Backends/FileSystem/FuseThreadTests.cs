using System.Globalization;
using System.Runtime.Versioning;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration;
using Vmm.Tests.Integration.Linux.Devices;
using static Vmm.Tests.Conformance.FuseClient;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>How the threads are scheduled that a ring's thread begins.</summary>
[SupportedOSPlatform("linux")]
public class FuseThreadTests : FileSystemTest
{
    private const string Other = "0", Batch = "3";      // SCHED_OTHER and SCHED_BATCH

    // A thread of the native binary inherits the policy of the one that begins it. On a machine with one processor a ring's thread changes its own; here the test does.
    [Test]
    public void Threads_BegunByARingThatGathersKicks_TakeTheProcessorWhenTheyAreWoken()
    {
        RequireRoot();
        if (!VmmProcess.IsNative)
            Assert.Ignore("the runtime of an assembly sets the policy of each thread: set VMM_BINARY");
        string online = Path.Combine(Scratch, "online");
        File.WriteAllText(online, "0\n");
        using var process = new HostDaemon(
            [SocketPath],
            "unshare",
            ["--mount", "sh", "-c", "mount --bind \"$1\" /sys/devices/system/cpu/online && shift && exec \"$@\"", "sh", online,
            .. VmmProcess.Command, "backend", "fs", "--socket-path", SocketPath, "--shared-dir", Shared]);
        using var guest = new FuseGuest(SocketPath);
        (ulong node, ulong handle) = guest.Create(FuseGuest.Root, "file");
        HostCommand.Run("chrt", "--batch", "--all-tasks", "--pid", "0", process.Id.ToString(CultureInfo.InvariantCulture));
        Assert.That(PoliciesOf(process, ""), Is.All.EqualTo(Batch).And.Not.Empty);

        guest.Demand(20, node, [.. Bytes(handle), .. Bytes(0U, 0U)]);       // FUSE_FSYNC: for the pool
        Assert.That(guest.Lock(node, handle, owner: 1, type: 1), Is.Zero);
        var waiting = new PendingRequest(guest, 33, node, FuseGuest.LockArguments(handle, owner: 2, type: 1));
        foreach (string name in (string[])["fs pool 0", "fs locks"])
            Eventually.True(() => PoliciesOf(process, name) is [Other], () => $"{name} has policy {string.Join(' ', PoliciesOf(process, name))}");
        Assert.That(guest.Lock(node, handle, owner: 1, type: 2), Is.Zero);
        Assert.That(waiting.Await(), Is.Zero);
    }

    // Of the threads whose names begin so. proc(5): the 41st field; the second is the name, in parentheses.
    private static string[] PoliciesOf(HostDaemon process, string name) =>
    [
        .. Directory.GetDirectories($"/proc/{process.Id}/task").Select(task => File.ReadAllText(Path.Combine(task, "stat")))
            .Where(status => status.Contains($"({name}", StringComparison.Ordinal)).Select(status => status[(status.LastIndexOf(')') + 2)..].Split(' ')[38]),
    ];
}
