using System.Globalization;
using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>The same random operations on a directory that our back-end shares and on the guest's own ext4 (fsdiff): results, errors and trees have to be the same. The shared directory is
/// on an ext4 of the host's.</summary>
public class FileSystemDifferenceTests : DeviceTest
{
    private static readonly TimeSpan s_deadline = TimeSpan.FromMinutes(IsFull ? 30 : 5);

    private string _share = "";
    private bool _isMounted;

    [SetUp]
    public void MakeShare()
    {
        _share = Directory.CreateDirectory(Path.Combine(Scratch, "share")).FullName;
        HostCommand.Run("modprobe", "-a", "loop", "ext4");
        foreach (string name in (string[])["host.img", "local.img"])
            HostCommand.Run("sh", "-c", $"truncate -s 256M {Path.Combine(Scratch, name)} && PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q {Path.Combine(Scratch, name)}");
        HostCommand.Run("mount", "-o", "loop,noatime", Path.Combine(Scratch, "host.img"), _share);
        _isMounted = true;
    }

    [TearDown]
    public void Unmount()
    {
        if (_isMounted)
            HostCommand.TryRun("umount", "--lazy", _share);
        _isMounted = false;
    }

    [Test]
    public void Source_RandomOperationsOfAllUsers_AreAsOnALocalFileSystem()
    {
        string[] caches = ["auto", "never", "always", "metadata"];
        int seconds = IsFull ? 180 : 6;
        uint seed = TestContext.CurrentContext.Random.NextUInt(1 << 30);
        TestContext.Out.WriteLine($"the random seed is {seed}");
        foreach (string cache in caches)
            Directory.CreateDirectory(Path.Combine(_share, cache));
        VmmResult result = Boot(GuestWith(
            $$"""
            mkdir /local
            mount -o noatime /dev/vda /local || exit 1
            differ() { # CACHE SECONDS SEED
                echo "with cache=$1, seed $3"
                fsdiff /local/$1 /share.$1 $2 $3 || exit 1
            }
            for cache in {{string.Join(' ', caches)}}; do
                mkdir /local/$cache /share.$cache
                mount -t virtiofs $cache /share.$cache || exit 1
                differ $cache {{seconds}} 1
            done
            differ auto {{2 * seconds}} {{seed}}
            differ never {{seconds}} {{seed + (1U << 30)}}
            """,
            [
                "--disk", $"path={Path.Combine(Scratch, "local.img")}",
                .. caches.SelectMany(cache => (string[])["--fs", $"tag={cache},source={Path.Combine(_share, cache)},cache={cache}"]),
            ])).WaitForEnd(s_deadline);
        TestContext.Out.WriteLine(result.Output);

        Assert.That(result.ExitCode, Is.Zero, result.Summary);
        Assert.That(result.Output, Does.Contain(LinuxGuest.Ended(0)), result.Summary);
        Assert.That(int.Parse(ValueOf(result, "succeeded"), CultureInfo.InvariantCulture), Is.GreaterThan(5));
    }
}
