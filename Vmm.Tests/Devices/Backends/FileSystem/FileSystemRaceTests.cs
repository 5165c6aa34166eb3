using System.Globalization;
using System.Runtime.Versioning;
using NUnit.Framework;
using Vmm.Tests.Integration;
using Vmm.Tests.Integration.Linux.Devices;
using static Vmm.Tests.Conformance.FuseClient;

namespace Vmm.Tests.Devices.Backends.FileSystem;

/// <summary>Whether anything leads out of the directory for a guest, while the host changes it.</summary>
[SupportedOSPlatform("linux")]
public class FileSystemRaceTests : FileSystemTest
{
    // Another process of the host renames directories and swaps links all the time, while the guest walks.
    [Test]
    public void Races_WithTheHost_LeadNowhere()
    {
        string away = Directory.CreateDirectory(Path.Combine(Scratch, "away")).FullName;
        string secret = Path.Combine(away, "file");
        File.WriteAllText(secret, "secret");
        File.SetUnixFileMode(secret, (UnixFileMode)0x180);
        File.SetLastWriteTimeUtc(secret, DateTime.UnixEpoch);
        Directory.SetLastWriteTimeUtc(away, DateTime.UnixEpoch);
        Directory.CreateDirectory(In("a/b"));
        File.WriteAllText(In("a/b/file"), "public");
        FuseGuest guest = Begin("--cache", "never");
        int seconds = VmmTest.IsFull ? 60 : 5;
        string script = $"""
            import os, time
            end = time.time() + {seconds}
            os.chdir('{Shared}')
            n = 0
            while time.time() < end:
                os.rename('a', 'x'); os.symlink('{away}', 'a'); os.unlink('a'); os.rename('x', 'a')
                os.rename('a/b', 'a/y'); os.symlink('{away}', 'a/b'); os.unlink('a/b'); os.rename('a/y', 'a/b')
                os.rename('a/b/file', 'a/b/z'); os.symlink('{away}/file', 'a/b/file'); os.unlink('a/b/file'); os.rename('a/b/z', 'a/b/file')
                os.rename('a/b', 'c'); os.rename('c', 'a/b')
                n += 1
            print(n)
            """;
        Task<string> host = Task.Run(() => HostCommand.Run("python3", "-c", script));
        int read = 0, missed = 0;
        while (!host.IsCompleted)
        {
            long node = guest.Find("a/b/file");
            long handle = node < 0 ? node : guest.Open((ulong)node, 2);
            if (handle < 0)
            {
                missed++;
                guest.TryCreate(FuseGuest.Root, "made");
                guest.Unlink(FuseGuest.Root, "made");
                continue;
            }
            Assert.That(guest.Fuse.Read((ulong)node, (ulong)handle, 0, 100), Is.EqualTo("public"u8.ToArray()));
            guest.Fuse.Write((ulong)node, (ulong)handle, 0, "public"u8.ToArray());
            guest.Fuse.Release((ulong)node, (ulong)handle);
            // By the directory that was found a moment before.
            long directory = guest.Find("a/b");
            if (directory > 0)
            {
                long made = guest.TryCreate((ulong)directory, "new");
                if (made > 0)
                    guest.Try(18, (ulong)directory, [.. Bytes((ulong)made), .. Bytes(0U, 0U), .. Bytes(0UL)]);
                guest.Unlink((ulong)directory, "new");
                Change(guest, (ulong)node, (ulong)directory);
            }
            read++;
        }
        TestContext.Out.WriteLine($"{read} times read, {missed} times missed, {host.Result.Trim()} rounds of the host");
        Assert.That(read, Is.GreaterThan(10));
        Assert.That(int.Parse(host.Result, CultureInfo.InvariantCulture), Is.GreaterThan(100));
        Assert.That((File.GetUnixFileMode(secret), File.GetLastWriteTimeUtc(secret)), Is.EqualTo(((UnixFileMode)0x180, DateTime.UnixEpoch)));
        Assert.That(HostCommand.Run("stat", "-c", "%h %u", secret).Trim(), Is.EqualTo($"1 {HostCommand.Run("id", "-u").Trim()}"), "links and owner");
        Assert.That(Directory.GetLastWriteTimeUtc(away), Is.EqualTo(DateTime.UnixEpoch), "nothing was made or removed there");
        Assert.That(File.ReadAllText(secret), Is.EqualTo("secret"));
        Assert.That(Directory.GetFileSystemEntries(away), Has.Length.EqualTo(1));
        Assert.That(Directory.GetFileSystemEntries(Scratch).Select(Path.GetFileName), Is.EquivalentTo(new[] { "away", "shared", "backend.sock", "tmp" }));
    }

    // All that changes what a name or a file says; whether it works is the race's.
    private static void Change(FuseGuest guest, ulong node, ulong directory)
    {
        guest.Try(4, node, [.. Bytes(1U, 0U), .. new byte[48], .. Bytes(0U, 0U, 0U, 0x1B6U, 0U, 0U, 0U, 0U)], FuseGuest.AttributesSize);     // mode
        guest.Try(4, node, [.. Bytes(8U, 0U), .. Bytes(0UL, 6UL, 0UL, 0UL, 0UL, 0UL), .. new byte[32]], FuseGuest.AttributesSize);          // size
        guest.Try(4, node, [.. Bytes(32U, 0U), .. Bytes(0UL, 0UL, 0UL, 0UL, 1000UL, 0UL), .. new byte[32]], FuseGuest.AttributesSize);      // time of the last write
        guest.SetXattr(node, "user.race", [1]);
        guest.Try(6, directory, [.. Name("soft"), .. Name("file")], FuseGuest.EntrySize);
        guest.Try(13, directory, [.. Bytes(node), .. Name("hard")], FuseGuest.EntrySize);
        guest.Rename(directory, "hard", directory, "harder");
        guest.Try(9, directory, [.. Bytes(0x1EDU, 0U), .. Name("inner")], FuseGuest.EntrySize);
        guest.Try(11, directory, Name("inner"));
        foreach (string name in (string[])["soft", "hard", "harder"])
            guest.Unlink(directory, name);
    }
}
