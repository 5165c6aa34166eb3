using NUnit.Framework;
using Vmm.Guest;
using Vmm.Tests.Integration.Linux.Devices;

namespace Vmm.Tests.Guest;

[System.Runtime.Versioning.SupportedOSPlatform("linux")]
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class KernelSearchTests : IDisposable
{
    private readonly HostTree _host = new();

    public void Dispose() => _host.Dispose();

    [Test]
    public void Search_NothingNamed_IsTheRunningKernelWithItsModules()
    {
        string image = _host.AddImage("boot/vmlinuz-6.1.0-18-amd64", "6.1.0-18-amd64");
        _host.AddImage("boot/vmlinuz-6.9.0", "6.9.0");
        _host.Add("lib/modules/6.1.0-18-amd64/modules.dep");

        Assert.That(Search(running: "6.1.0-18-amd64"), Is.EqualTo(new GuestKernel(image, "6.1.0-18-amd64", _host.In("lib/modules/6.1.0-18-amd64"))));
    }

    [TestCase("boot/vmlinuz-6.5.1")]
    [TestCase("lib/modules/6.5.1/vmlinuz")]
    [TestCase("usr/lib/modules/6.5.1/vmlinuz")]
    [TestCase("run/booted-system/kernel")]
    public void Search_RunningKernelsImage_IsFoundWhereDistributionsPutIt(string place)
    {
        string image = _host.AddImage(place, "6.5.1");

        Assert.That(Search(running: "6.5.1").ImagePath, Is.EqualTo(image));
    }

    [Test]
    public void Search_RunningKernelHasNoImage_IsTheNewest()
    {
        _host.AddImage("boot/vmlinuz-6.9.12", null);
        _host.AddImage("boot/vmlinuz-0-rescue-0123", null);
        string newest = _host.AddImage("lib/modules/6.10.1/vmlinuz", null);
        _host.AddImage("lib/modules/6.10.1-rc7/vmlinuz", null);
        _host.Add("lib/modules/6.11.0/modules.dep");

        Assert.That(Search(running: "5.15.0-microsoft"), Is.EqualTo(new GuestKernel(newest, "6.10.1", null)));
    }

    // Names that are no releases sort behind all numbers.
    [TestCase("boot/vmlinuz-linux-lts", "5.10.0")]
    [TestCase("boot/vmlinuz-virt", null)]
    [TestCase("boot/vmlinuz-6.9.0.old", "6.9.0")]
    [TestCase("boot/vmlinuz-6.9.9", "6.8.0")]
    public void Search_FileWhoseNameIsNotItsRelease_CountsByItsRelease(string other, string? release)
    {
        string newest = _host.AddImage("boot/vmlinuz-6.9.0", "6.9.0");
        _host.AddImage(other, release);

        Assert.That(Search(running: "5.15.0-microsoft").ImagePath, Is.EqualTo(newest));
    }

    [Test]
    public void Search_RunningKernelUnderAnotherName_IsFound()
    {
        string running = _host.AddImage("boot/vmlinuz-6.6.bak", "6.6.1-0-virt");
        _host.AddImage("boot/vmlinuz-6.9.0", "6.9.0");
        _host.Add("lib/modules/6.6.1-0-virt/modules.dep");

        Assert.That(Search(running: "6.6.1-0-virt"), Is.EqualTo(new GuestKernel(running, "6.6.1-0-virt", _host.In("lib/modules/6.6.1-0-virt"))));
    }

    [Test]
    public void Search_ImageThatIsNoKernel_IsNotTakenForItsName()
    {
        string good = _host.AddImage("boot/vmlinuz-6.9.0", "6.9.0");
        _host.Add("boot/vmlinuz-rescue", "nonsense");

        Assert.That(Search(running: "5.0.0").ImagePath, Is.EqualTo(good));
    }

    // 0xFF and 0xFE are no UTF-8.
    [Test]
    public void Search_PathThatIsNotUtf8_IsFound()
    {
        string place = _host.In("\uDCFF\uDCFE");
        HostCommand.Run("sh", "-c", $"d=\"{_host.Root}/$(printf '\\377\\376')\" && mkdir -p \"$d/boot\" \"$d/lib/modules/6.1.0\" && touch \"$d/lib/modules/6.1.0/modules.dep\" && cp {_host.AddImage("image", "6.1.0")} \"$d/boot/x\"");
        try
        {
            Assert.That(Search($"{place}/boot/x"), Is.EqualTo(new GuestKernel($"{place}/boot/x", "6.1.0", $"{place}/lib/modules/6.1.0")));
            Assert.That(Search($"{place}/boot/x", $"{place}/lib/modules/6.1.0").Modules, Is.EqualTo($"{place}/lib/modules/6.1.0"));
        }
        finally
        {
            HostCommand.Run("sh", "-c", $"rm -r {_host.Root}/*");   // the runtime cannot
        }
    }

    [Test]
    public void Search_NoImageAnywhere_SaysWhatToInstall() =>
        AssertError(() => Search(), "no kernel was found", "apt-get install", "--kernel");

    [Test]
    public void Search_Release_IsThatOne()
    {
        _host.AddImage("boot/vmlinuz-6.9.0", "6.9.0");
        string image = _host.AddImage("boot/vmlinuz-6.8.0", "6.8.0");

        Assert.That(Search("6.8.0").ImagePath, Is.EqualTo(image));
    }

    [NonParallelizable]     // the working directory is the process's
    [TestCase("6.8.0")]
    [TestCase("6.8.0/arch/x86/boot/bzImage")]
    public void Search_ReleaseThatIsInstalled_IsNotWhatIsInTheWorkingDirectory(string decoy)
    {
        string image = _host.AddImage("boot/vmlinuz-6.8.0", "6.8.0");
        _host.AddImage($"work/{decoy}", "6.8.0");
        string before = Environment.CurrentDirectory;
        try
        {
            Environment.CurrentDirectory = _host.In("work");

            Assert.That(Search("6.8.0").ImagePath, Is.EqualTo(image));
            Assert.That(Search($"./{decoy}").ImagePath, Is.Not.EqualTo(image));
        }
        finally
        {
            Environment.CurrentDirectory = before;
        }
    }

    [Test]
    public void Search_ReleaseThatIsNotThere_NamesThoseThatAre()
    {
        _host.AddImage("boot/vmlinuz-6.9.0", "6.9.0");
        _host.AddImage("boot/vmlinuz-6.10.0", "6.10.0");

        AssertError(() => Search("6.8.0"), "--kernel: no file and no kernel is called 6.8.0", "there are 6.9.0, 6.10.0");
    }

    [Test]
    public void Search_FileOfAnUnpackedPackage_HasItsReleaseAndTheModulesBesideIt()
    {
        string image = _host.AddImage("package/boot/vmlinuz-x", "6.12.9");
        _host.Add("package/usr/lib/modules/6.12.9/modules.dep");
        _host.Add("lib/modules/6.12.9/modules.dep");

        Assert.That(Search(image), Is.EqualTo(new GuestKernel(image, "6.12.9", _host.In("package/usr/lib/modules/6.12.9"))));
    }

    [TestCase("package/boot", "package/lib/modules/6.12.9", "", "")]
    [TestCase("package/boot", "package/lib/modules/6.12.9", "package/lib/modules/6.12.9", "777")]
    [TestCase("package/boot", "package/lib/modules/6.12.9", "package/lib/modules/6.12.9", "1777")]
    [TestCase("package/boot", "package/lib/modules/6.12.9", "package/lib", "777")]
    [TestCase("package/boot", "package/lib/modules/6.12.9", "package", "777")]
    [TestCase("package/boot", "package/lib/modules/6.12.9", "package", "1777")]
    [TestCase("package/images", "package/lib/modules/6.12.9", "", "")]
    public void Search_ModulesBesideAFile_AreThoseOfAPackageThatNobodyElseWrote(string place, string modules, string open, string mode)
    {
        string image = _host.AddImage($"{place}/vmlinuz-x", "6.12.9");
        _host.Add($"{modules}/modules.dep");
        if (mode.Length > 0)
            File.SetUnixFileMode(_host.In(open), (UnixFileMode)Convert.ToInt32(mode, 8));
        bool isTaken = place == "package/boot" && (mode.Length == 0 || (mode, open) == ("1777", "package"));

        Assert.That(Search(image).Modules, Is.EqualTo(isTaken ? _host.In(modules) : null));
    }

    [TestCase("linux/vmlinux")]
    [TestCase("linux/arch/x86/boot/bzImage")]
    public void Search_TreeThatOthersWriteTo_IsNoneUnlessItIsNamed(string image)
    {
        _host.AddImage("linux/arch/x86/boot/bzImage", "6.13.0");
        _host.AddImage(image, "6.13.0");
        _host.Add("linux/include/config/kernel.release", "6.13.0\n");
        File.SetUnixFileMode(_host.In("linux"), (UnixFileMode)Convert.ToInt32("777", 8));

        Assert.That(Search(_host.In(image)), Is.EqualTo(new GuestKernel(_host.In(image), "6.13.0", null)));
        Assert.That(Search(_host.In("linux")).IsBuildTree, Is.True);
    }

    [Test]
    public void Search_FileOfAnInstalledRelease_HasTheHostsModules()
    {
        string image = _host.AddImage("work/bzImage", "6.12.9");
        _host.Add("lib/modules/6.12.9/modules.dep");

        Assert.That(Search(image).Modules, Is.EqualTo(_host.In("lib/modules/6.12.9")));
    }

    [TestCase("")]
    [TestCase("/arch/x86/boot/bzImage")]
    public void Search_BuildTreeOrItsImage_HasTheTreesModules(string named)
    {
        string image = _host.AddImage("linux/arch/x86/boot/bzImage", "6.13.0-old");
        _host.Add("linux/include/config/kernel.release", "6.13.0-mine+\n");

        Assert.That(Search(_host.In("linux") + named), Is.EqualTo(new GuestKernel(image, "6.13.0-mine+", _host.In("linux"), IsBuildTree: true)));
    }

    [Test]
    public void Search_BuildTreeBeforeItsKernelIsBuilt_SaysSo()
    {
        _host.Add("linux/include/config/auto.conf");

        AssertError(() => Search(_host.In("linux")), "has no arch/x86/boot/bzImage yet", "make bzImage");
    }

    // /lib/modules/RELEASE/build is such a tree.
    [Test]
    public void Search_HeadersOfAKernel_SaysHowToNameThatKernel()
    {
        string image = _host.AddImage("boot/vmlinuz-6.1.0", "6.1.0");
        _host.Add("headers/include/config/kernel.release", "6.1.0\n");
        _host.Add("headers/include/config/auto.conf");

        AssertError(() => Search(_host.In("headers")), "has no arch/x86/boot/bzImage yet", "only the headers", "write --kernel 6.1.0");
        AssertError(() => Search(image, _host.In("headers")), "--modules: ", "no module was built", "name /lib/modules/6.1.0");
        _host.Add("headers/vmlinux");
        Assert.That(Search(image, _host.In("headers")).IsBuildTree, Is.True, "a kernel without modules");
    }

    [Test]
    public void Search_DirectoryOfModulesWithTheirKernel_IsThatKernel()
    {
        string image = _host.AddImage("lib/modules/6.5.1/vmlinuz", "6.5.1");
        _host.Add("lib/modules/6.5.1/modules.dep");

        Assert.That(Search(_host.In("lib/modules/6.5.1")), Is.EqualTo(new GuestKernel(image, "6.5.1", _host.In("lib/modules/6.5.1"))));
    }

    [Test]
    public void Search_OtherDirectory_SaysWhatIsWanted() => AssertError(() => Search(_host.Root), "is a directory without a kernel");

    [Test]
    public void Search_FileThatIsNotThere_SaysSo() => AssertError(() => Search("./nothing"), "./nothing", "--kernel");

    [TestCase("m/6.1.0", "m/6.1.0")]
    [TestCase("m", "m/lib/modules/6.1.0")]
    public void Search_Modules_AreTakenFromThere(string named, string expected)
    {
        string image = _host.AddImage("bzImage", "6.1.0");
        _host.Add($"{expected}/modules.dep");

        Assert.That(Search(image, _host.In(named)).Modules, Is.EqualTo(_host.In(expected)));
    }

    [Test]
    public void Search_ModulesOfAnotherRelease_AreRefused()
    {
        string image = _host.AddImage("bzImage", "6.1.0");
        _host.Add("m/lib/modules/6.2.0/modules.dep");

        AssertError(() => Search(image, _host.In("m")), "--modules:", "lib/modules/6.1.0");
    }

    [Test]
    public void Search_ImageThatOnlyRootReads_SaysWhatToDo()
    {
        if (Environment.IsPrivilegedProcess)
            Assert.Ignore("root reads everything");
        string image = _host.AddImage("boot/vmlinuz-6.8.0-generic", "6.8.0-generic");
        File.SetUnixFileMode(image, UnixFileMode.None);

        AssertError(() => Search(running: "6.8.0-generic"), "is not yours to read", "sudo chmod 0644");
    }

    [TestCase("6.9.12", "6.10.1")]
    [TestCase("6.10.0-rc7", "6.10.0")]
    [TestCase("6.10.0-rc7", "6.10.0-rc10")]
    [TestCase("6.1.0-18-amd64", "6.1.0-20-amd64")]
    [TestCase("6.1.0", "6.1.0-mine")]
    [TestCase("6.10.0-rc7-mine", "6.10.0-mine")]
    public void Compare_OlderAndNewer_AreInOrder(string older, string newer)
    {
        Assert.That(KernelRelease.Compare(older, newer), Is.Negative);
        Assert.That(KernelRelease.Compare(newer, older), Is.Positive);
        Assert.That(KernelRelease.Compare(newer, newer), Is.Zero);
    }

    // The offset is the file's: it may point anywhere, and what is there may be anything.
    [TestCase((ushort)0xFFFF, "6.1.0 ")]
    [TestCase((ushort)0x300, "../../etc ")]
    [TestCase((ushort)0x300, "\x1b[2J ", TestName = "{m}(an escape sequence)")]
    [TestCase((ushort)0x300, "a-text-that-does-not-end-within-the-sixty-four-bytes-that-Linux-has-for-a-release")]
    public void Search_ImageWithANonsenseRelease_HasNone(ushort offset, string text)
    {
        byte[] image = HostTree.Image(null);
        Vmm.Tests.Boot.ElfBuilder.U16(image, 0x20E, offset);
        System.Text.Encoding.ASCII.GetBytes(text).CopyTo(image.AsSpan(0x500));

        Assert.That(Search(_host.Add("bzImage", image)), Is.EqualTo(new GuestKernel(_host.In("bzImage"), null, null)));
    }

    [TestCase("linux/arch/x86/boot/bzImage", null, true)]
    [TestCase("boot/vmlinuz-6.1.0", "mods", true)]
    [TestCase("bzImage", null, false)]
    [TestCase("boot/vmlinuz-6.1.0", "mods/../lib/modules/6.1.0", false)]
    public void Search_ModulesThatNobodyNamed_AreConfinedUnlessTheyAreOfThisHost(string kernel, string? modules, bool expected)
    {
        _host.AddImage("linux/arch/x86/boot/bzImage", "6.1.0");
        _host.Add("linux/include/config/auto.conf");
        _host.AddImage("bzImage", "6.1.0");
        _host.AddImage("boot/vmlinuz-6.1.0", "6.1.0");
        _host.Add("lib/modules/6.1.0/modules.dep");
        _host.Add("mods/modules.dep");

        Assert.That(Find(areModulesFound: true).AreModulesConfined, Is.EqualTo(expected));
        Assert.That(Find(areModulesFound: false).AreModulesConfined, Is.False);

        GuestKernel Find(bool areModulesFound) => new KernelSearch(_host.Root, "5.0.0").Search(_host.In(kernel), modules is null ? null : _host.In(modules), areModulesFound);
    }

    private GuestKernel Search(string? kernel = null, string? modules = null, string running = "5.0.0") =>
        new KernelSearch(_host.Root, running).Search(kernel, modules);

    private static void AssertError(Func<GuestKernel> search, params string[] parts)
    {
        VmmException error = Assert.Throws<VmmException>(() => search())!;
        foreach (string part in parts)
            Assert.That(error.Message, Does.Contain(part));
        Assert.That(error.Message, Does.Not.Contain('\n'));
    }
}
