using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux;

/// <summary>Scripts for a guest whose directory our back-end shares, and what they have to print. They are the same under our VMM and under QEMU.</summary>
internal static class FileSystemSuite
{
    /// <summary>The status of <c>apt-get</c> for root's packages is good if the output has these.</summary>
    public static readonly string[] PackageResults = ["\nless 590 ", "\nsudo=4755 0\n", "\nsetuid=works\n", "\nping=works\n", "\nsudo=gone\n", "/bin/ping cap_net_raw=ep"];

    /// <summary>overlayfs with its upper directory in a share.</summary>
    /// <param name="share">Where the share is mounted. It becomes the place of the directories lower, upper and workdir.</param>
    /// <remarks>/merged must exist, and the kernel must have overlayfs.</remarks>
    public static string Overlay(string share) =>
        $$"""
        mkdir {{share}}/lower {{share}}/lower/kept {{share}}/lower/replaced {{share}}/upper {{share}}/workdir
        cd {{share}}/lower
        echo below | tee changed removed moved kept/file replaced/file > /dev/null
        over() { mount -t overlay -o lowerdir={{share}}/lower,upperdir={{share}}/upper,workdir={{share}}/workdir overlay /merged; }
        over || exit 1
        cd /merged
        echo above >> changed && rm removed && mv moved elsewhere && rm -r replaced && mkdir replaced && echo new > replaced/new && chmod 600 kept/file || exit 1
        cd / && umount /merged && over || exit 1
        cd /merged
        echo "names=$(echo $(find . -type f | sort))"
        echo "overlay=$(echo $(cat changed)), $(stat -c %a kept/file)"
        cd / && umount /merged

        """;

    /// <summary>Asserts what <see cref="Overlay"/> has printed, and left on the host.</summary>
    /// <param name="output">What the guest printed.</param>
    /// <param name="directory">The shared directory.</param>
    public static void AssertOverlay(string output, string directory)
    {
        Assert.That(output, Does.Match("(?m)^names=\\./changed \\./elsewhere \\./kept/file \\./replaced/new\r?$").And.Match("(?m)^overlay=below above, 600\r?$"));
        Assert.That(File.ReadAllText(Path.Combine(directory, "upper", "changed")), Is.EqualTo("below\nabove\n"));
        Assert.That(File.ReadAllText(Path.Combine(directory, "lower", "changed")), Is.EqualTo("below\n"));
    }

    /// <summary>Installs packages in the Debian tree that is the root directory, and looks at what they bring.</summary>
    /// <param name="isRoot">Whether the daemon may do all that root may. A user's may not set file capabilities, nor write to files of mode 0440, of which sudo has some.</param>
    public static string InstallPackages(bool isRoot)
    {
        string check =
            """
            dpkg --verify sudo iputils-ping less | grep -v '^missing .* /usr/share/\(doc\|man\|locale\)' && exit 1    # which the tree leaves out
            as_user() { setpriv --reuid games --regid games --clear-groups "$@"; }
            stat -c 'sudo=%a %u' /usr/bin/sudo
            as_user sudo -n true 2>&1 | grep -q 'password is required' && echo "setuid=works"
            as_user ping -c 1 127.0.0.1 && echo "ping=works"
            getcap /bin/ping
            SUDO_FORCE_REMOVE=yes apt-get -y purge sudo less || exit 1
            test ! -e /usr/bin/sudo && echo "sudo=gone"
            """;
        return
            $"""
            export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin
            apt-get -y -o APT::Sandbox::User=root install {(isRoot ? "/packages/*.deb" : "/packages/less_*.deb")} || exit 1
            dpkg --audit || exit 1
            less --version
            {(isRoot ? check : "")}
            """;
    }

    /// <summary>Runs firmware/guest/suite once on the guest's own ext4, and once on the share.</summary>
    /// <param name="suite">What to run, with DIR in the place of the directory.</param>
    /// <param name="command">How to run it.</param>
    /// <param name="local">The directory on ext4.</param>
    /// <param name="share">The directory on the share.</param>
    public static string InBothPlaces(string suite, string command, string local, string share) =>
        $"""
        for place in {local} {share}; do
            echo "in=$place"
            echo "in=$place" >&2
            {command} {suite.Replace("DIR", "$place", StringComparison.Ordinal)}
        done

        """;

    /// <summary>Asserts that all that worked on the guest's ext4 worked on the share, too.</summary>
    /// <param name="output">What the script of <see cref="InBothPlaces"/> printed.</param>
    /// <param name="atLeast">How many tests must have worked on ext4.</param>
    /// <param name="differences">Tests that may differ. Their reasons are in docs/virtio-fs.md.</param>
    public static void AssertSame(string output, int atLeast, params string[] differences)
    {
        string[] places = output.Replace("\r", "", StringComparison.Ordinal).Split("in=/");
        Assert.That(places, Has.Length.EqualTo(3));
        (Dictionary<string, string> local, Dictionary<string, string> share) = (Results(places[1]), Results(places[2]));

        Assert.That(share.Keys, Is.EquivalentTo(local.Keys));
        Assert.That(local.Values.Count(value => value == "ok"), Is.GreaterThanOrEqualTo(atLeast));
        Assert.That(
            share.Where(each => each.Value != local[each.Key] && !differences.Contains(each.Key)).Select(each => $"{each.Key}: {each.Value} on the share, {local[each.Key]} on ext4"), Is.Empty);
    }

    private static Dictionary<string, string> Results(string output)
    {
        string[] lines = output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        int end = Array.IndexOf(lines, "end");
        Assert.That(end, Is.GreaterThan(0), "the suite has not ended by itself");
        return lines[1..end].Select(line => line.Split(": ")).ToDictionary(parts => parts[0], parts => parts[1], StringComparer.Ordinal);
    }
}
