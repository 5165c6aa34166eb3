using NUnit.Framework;
using Vmm.Guest;
using Vmm.Tests.Boot;
using Vmm.Tests.Integration.Linux;

namespace Vmm.Tests.Guest;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class KernelModulesTests : IDisposable
{
    private readonly HostTree _host = new();

    public void Dispose() => _host.Dispose();

    [Test]
    public void Plan_Dependencies_ComeFirstAndOnce()
    {
        AddDependencies("kernel/a/virtio.ko:", "kernel/b/ring-buffer.ko.xz: kernel/a/virtio.ko", "kernel/fuse.ko:",
            "kernel/virtiofs.ko: kernel/b/ring-buffer.ko.xz kernel/a/virtio.ko kernel/fuse.ko", "kernel/x/virtio_mmio.ko: kernel/b/ring-buffer.ko.xz kernel/a/virtio.ko");

        ModulePlan plan = Plan("virtio_mmio", "virtiofs");

        Assert.That(Names(plan), Is.EqualTo(new[] { "virtio", "ring_buffer", "virtio_mmio", "fuse", "virtiofs" }));
        Assert.That(plan.Load[1].Path, Is.EqualTo(_host.In("kernel/b/ring-buffer.ko.xz")));
        Assert.That(plan.Missing, Is.Empty);
    }

    [TestCase("modules.builtin", "kernel/drivers/virtio/virtio-mmio.ko\n")]
    [TestCase("modules.builtin.modinfo", "virtio_mmio.license=GPL\0virtio_mmio.alias=of:N*\0")]
    public void Plan_BuiltInDriver_NeedsNoModule(string file, string content)
    {
        _host.Add(file, content);

        ModulePlan plan = Plan("virtio_mmio");

        Assert.That(plan.Load, Is.Empty);
        Assert.That(plan.Missing, Is.Empty);
    }

    [Test]
    public void Plan_SoftDependency_IsLoadedByAliasBeforeAndMayFail()
    {
        AddDependencies("k/ext4.ko: k/jbd2.ko", "k/jbd2.ko:", "k/crc32c-intel.ko:", "k/crc32c_generic.ko:", "k/late.ko:");
        _host.Add("modules.softdep", "# comment\nsoftdep ext4 pre: crypto-crc32c nothing post: late\n");
        _host.Add("modules.alias", "alias crypto-crc32c crc32c_intel\nalias pci:v*d* late\nalias crypto-crc32c crc32c_generic\n");

        ModulePlan plan = Plan("ext4");

        Assert.That(Names(plan), Is.EqualTo(new[] { "crc32c_intel", "crc32c_generic", "jbd2", "ext4" }));
        Assert.That(plan.Load.Select(module => module.IsOptional), Is.EqualTo(new[] { true, true, false, false }));
    }

    [TestCase("~Module signature appended~\n", true, "sha256_ssse3,virtio,virtio_mmio")]
    [TestCase("~Module signature appended~\n", false, "virtio,virtio_mmio")]
    [TestCase("", true, "virtio,virtio_mmio")]
    public void Plan_SignedModules_HaveTheFastHashLoadedFirst(string end, bool isThere, string expected)
    {
        AddDependencies("k/virtio_mmio.ko: k/virtio.ko", "k/virtio.ko:", "k/sha256-ssse3.ko:");
        _host.Add("k/virtio.ko", $"\u007FELF and more{end}");
        if (isThere)
            _host.Add("k/sha256-ssse3.ko");

        ModulePlan plan = Plan("virtio_mmio");

        Assert.That(Names(plan), Is.EqualTo(expected.Split(',')));
        Assert.That(plan.Load.Count(module => module.IsOptional), Is.EqualTo(expected.StartsWith("sha256", StringComparison.Ordinal) ? 1 : 0));
    }

    [Test]
    public void Plan_FirstModuleIsOptionalAndNotThere_IsNoFailure()
    {
        AddDependencies("k/ext4.ko: k/jbd2.ko", "k/jbd2.ko:", "k/crc32c.ko:", "k/sha256-ssse3.ko:");
        _host.Add("modules.softdep", "softdep ext4 pre: crc32c\n");

        Assert.That(Names(Plan("ext4")), Is.EqualTo(new[] { "crc32c", "jbd2", "ext4" }));
    }

    [Test]
    public void Plan_OptionalModuleOfABuildTreeThatWasNotBuilt_IsLeftOut()
    {
        _host.Add("modules.order", "net/ipv6/ipv6.o\nnet/packet/af_packet.o\n");
        _host.Add("net/packet/af_packet.ko", Module());

        ModulePlan plan = new KernelModules(new GuestKernel("bzImage", null, _host.Root, IsBuildTree: true)).Plan([GuestDriver.Ipv6, GuestDriver.PacketSockets]);

        Assert.That(Names(plan), Is.EqualTo(new[] { "af_packet" }));
    }

    [Test]
    public void Initramfs_OptionalModuleIsNotThere_IsLeftOut()
    {
        string there = _host.Add("there.ko", Module()), gone = _host.In("gone.ko");

        using var initramfs = new GuestInitramfs([new ModuleFile("gone", gone, IsOptional: true), new ModuleFile("there", there, IsOptional: true)], _ => { });

        Assert.That(initramfs.Files, Has.None.Contains("gone").And.Some.Contains("there.ko"));
        Assert.That(initramfs.Description, Has.None.Contains("gone").And.Some.Contains("there.ko"));
        Assert.That(() => new GuestInitramfs([new ModuleFile("gone", gone, IsOptional: false)], _ => { }), Throws.TypeOf<VmmException>().With.Message.Contains("gone"));
    }

    // A tree in which only the kernel was built, with all that is needed in it.
    [Test]
    public void Plan_BuildTreeWithoutAListOfWhatIsBuiltIn_AsksItsConfiguration()
    {
        _host.Add("include/config/auto.conf", "CONFIG_VIRTIO_MMIO=y\nCONFIG_VIRTIO_FS=m\nCONFIG_LOCALVERSION=\"=y\"\n");
        var kernel = new GuestKernel("bzImage", null, _host.Root, IsBuildTree: true);

        Assert.That(new KernelModules(kernel).Plan([GuestDriver.VirtioMmio, GuestDriver.VirtioFs]).Missing, Is.EqualTo(new[] { GuestDriver.VirtioFs }));
        Assert.That(new KernelModules(kernel).Has(GuestDriver.VirtioMmio), Is.True);
        _host.Add("modules.builtin", "kernel/other.ko\n");
        Assert.That(new KernelModules(kernel).Has(GuestDriver.VirtioMmio), Is.False, "the list counts before it");
    }

    [TestCase("modules.builtin", "run depmod 6.1.0")]
    [TestCase("modules.dep", "neither built in nor as a module")]
    public void RequireAll_ModulesThatNobodyHasListed_SaysDepmod(string file, string expected)
    {
        _host.Add(file, "kernel/other.ko:\n");
        GuestKernel kernel = new("bzImage", "6.1.0", _host.Root);

        Assert.That(() => new KernelModules(kernel).Plan([GuestDriver.VirtioFs]).RequireAll(kernel), Throws.TypeOf<VmmException>().With.Message.Contains(expected));
    }

    [Test]
    public void Plan_OptionalModuleThatAnotherNeeds_IsNotOptional()
    {
        AddDependencies("k/a.ko: k/b.ko", "k/b.ko: k/c.ko", "k/c.ko:", "k/d.ko: k/b.ko k/c.ko");
        _host.Add("modules.softdep", "softdep d pre: b\n");

        Assert.That(Plan("d", "a").Load.Where(module => module.IsOptional), Is.Empty);
    }

    [Test]
    public void Plan_MissingDrivers_AreNamedByTheirSymbols()
    {
        AddDependencies("k/fuse.ko:");
        GuestKernel kernel = new("bzImage", "6.1.0", _host.Root);

        ModulePlan plan = new KernelModules(kernel).Plan([GuestDriver.VirtioFs, GuestDriver.VirtioRng, GuestDriver.Vsock]);

        Assert.That(plan.Missing, Is.EqualTo(new[] { GuestDriver.VirtioFs, GuestDriver.Vsock }));
        Assert.That(() => plan.RequireAll(kernel), Throws.TypeOf<VmmException>().With.Message.Contains("CONFIG_VIRTIO_FS, CONFIG_VIRTIO_VSOCKETS"));
    }

    [Test]
    public void Has_DriverBuiltInOrAModule_IsThere()
    {
        AddDependencies("kernel/vmw_vsock_virtio_transport.ko:");
        _host.Add("modules.builtin", "kernel/drivers/char/virtio_console.ko\n");
        var modules = new KernelModules(new GuestKernel("bzImage", "6.1.0", _host.Root));

        Assert.That(new[] { GuestDriver.Vsock, GuestDriver.VirtioConsole, GuestDriver.VirtioFs }.Select(modules.Has), Is.EqualTo(new[] { true, true, false }));
    }

    [Test]
    public void Plan_NoModulesKnown_TakesAllForBuiltIn() =>
        Assert.That(new KernelModules(new GuestKernel("bzImage", null, null)).Plan([GuestDriver.VirtioFs]).Missing, Is.Empty);

    [Test]
    public void Plan_Circle_Ends()
    {
        AddDependencies("k/a.ko: k/b.ko", "k/b.ko: k/c.ko", "k/c.ko: k/a.ko");

        Assert.That(Names(Plan("a")), Is.EqualTo(new[] { "c", "b", "a" }));
    }

    [Test]
    public void Plan_EndlessChain_IsRefused()
    {
        AddDependencies([.. Enumerable.Range(0, 100_000).Select(i => $"k/m{i}.ko: k/m{i + 1}.ko")]);

        Assert.That(() => Plan("m0"), Throws.TypeOf<VmmException>().With.Message.Contains("run depmod"));
    }

    [Test]
    public void Plan_Crowd_IsRefused()
    {
        AddDependencies([.. Enumerable.Range(0, 5000).Select(i => $"k/m{i}.ko:"), $"k/all.ko: {string.Join(' ', Enumerable.Range(0, 5000).Select(i => $"k/m{i}.ko"))}"]);

        Assert.That(() => Plan("all"), Throws.TypeOf<VmmException>().With.Message.Contains("more than 1024"));
    }

    [Test]
    public void Plan_DependencyThatIsNotThere_SaysSo()
    {
        AddDependencies("k/a.ko: k/b.ko");

        Assert.That(() => Plan("a"), Throws.TypeOf<VmmException>().With.Message.Contains("needs b, which is not there"));
    }

    [TestCase("")]
    [TestCase(":\n::\n\0\xFF: x\n k/a.ko\nk/a.ko")]
    public void Plan_NonsenseInItsFiles_IsNoModule(string content)
    {
        foreach (string file in new[] { "modules.dep", "modules.builtin", "modules.builtin.modinfo", "modules.softdep", "modules.alias" })
            _host.Add(file, content);

        Assert.That(Plan("ext4").Missing, Has.Count.EqualTo(1));
    }

    [TestCase("cat", "")]
    [TestCase("gzip", "-c")]
    [TestCase("xz", "--check=crc32 --lzma2=dict=1MiB -c")]
    [TestCase("xz", "--check=sha256 --x86 --lzma2=dict=1MiB --block-size=65536 -c")]
    [TestCase("zstd", "-c")]
    public void Read_PackedModule_IsUnpacked(string tool, string arguments)
    {
        byte[] module = Module();
        byte[] packed = Packer.Run(tool, arguments, module);

        Assert.That(new ModuleFile("m", _host.Add("m.ko.packed", packed), IsOptional: false).Read(), Is.EqualTo(module));
    }

    [TestCase("gzip", "-c")]
    [TestCase("xz", "--check=crc32 -c")]
    [TestCase("zstd", "-c")]
    public void Read_DamagedModule_SaysWhich(string tool, string arguments)
    {
        byte[] packed = Packer.Run(tool, arguments, Module());
        string path = _host.Add("m.ko", packed[..(packed.Length / 2)]);

        Assert.That(() => new ModuleFile("m", path, IsOptional: false).Read(), Throws.TypeOf<VmmException>().With.Message.Contains(path));
    }

    // 300 MiB of zeros in a few hundred kilobytes.
    [TestCase("gzip", "-1 -c")]
    [TestCase("xz", "-1 -c")]
    [TestCase("zstd", "-c")]
    public void Read_ModuleThatWouldFillMemory_IsRefused(string tool, string arguments)
    {
        string path = _host.Add("m.ko", Packer.Run("sh", $"-c 'head -c 300M /dev/zero | {tool} {arguments}'", []));

        Assert.That(() => new ModuleFile("m", path, IsOptional: false).Read(), Throws.TypeOf<VmmException>().With.Message.Contains("268435456 bytes"));
    }

    [TestCase("a script\n")]
    [TestCase("")]
    public void Read_WhatIsNoModule_IsRefused(string content)
    {
        string path = _host.Add("m.ko", content);

        Assert.That(() => new ModuleFile("m", path, IsOptional: false).Read(), Throws.TypeOf<VmmException>().With.Message.Contains(path));
    }

    [TestCase("cloud")]
    [TestCase("generic")]
    [Category("Kernel")]
    public void Plan_DebiansKernel_HasAllThatAGuestNeeds(string flavour)
    {
        GuestKernel kernel = Debian(flavour);
        GuestDriver[] wanted = [GuestDriver.VirtioMmio, GuestDriver.VirtioFs, GuestDriver.Vsock, GuestDriver.Overlay, GuestDriver.VirtioBlock,
            GuestDriver.VirtioNet, GuestDriver.VirtioConsole, new("ext4", "CONFIG_EXT4_FS"), new("btrfs", "CONFIG_BTRFS_FS")];

        ModulePlan plan = new KernelModules(kernel).Plan(wanted);

        Assert.That(plan.Missing, Is.Empty);
        List<string> order = [.. Names(plan)];
        Assert.That(order, Is.Unique);
        foreach (ModuleFile module in plan.Load)
        {
            foreach (string needed in new ModuleInformation(module.Read()).Values("depends").SelectMany(value => value.Split(',')).Where(name => name.Length > 0))
                Assert.That(order.IndexOf(KernelModules.NameOf(needed)), Is.InRange(0, order.IndexOf(module.Name) - 1), $"{module.Name} needs {needed}");
        }
        Assert.That(order, Has.Member("fuse"));
        if (flavour == "generic")
            Assert.That(order.IndexOf("crc32c_generic"), Is.InRange(0, order.IndexOf("jbd2")), "not built in, and only a soft dependency");
    }

    // The same modules as a tree has them: no depmod was run.
    [TestCase("fs/ext4/ext4.o\nfs/jbd2/jbd2.o\nfs/mbcache.o\nlib/crc16.o\ncrypto/crc32c_generic.o\n")]
    [TestCase("kernel/fs/ext4/ext4.ko\nkernel/fs/jbd2/jbd2.ko\nkernel/fs/mbcache.ko\nkernel/lib/crc16.ko\nkernel/crypto/crc32c_generic.ko\n")]
    [Category("Kernel")]
    public void Plan_BuildTree_ReadsDependenciesOutOfTheModules(string order)
    {
        string modules = Debian("generic").Modules!;
        _host.Add("modules.order", order);
        _host.Add("modules.builtin", "kernel/drivers/virtio/virtio_mmio.ko\n");
        foreach (string path in new[] { "fs/ext4/ext4.ko", "fs/jbd2/jbd2.ko", "fs/mbcache.ko", "lib/crc16.ko", "crypto/crc32c_generic.ko" })
            _host.Add(path, File.ReadAllBytes(Path.Combine(modules, "kernel", path)));

        ModulePlan plan = new KernelModules(new GuestKernel("bzImage", null, _host.Root, IsBuildTree: true)).Plan([new("ext4", "CONFIG_EXT4_FS"), GuestDriver.VirtioMmio]);

        Assert.That(Names(plan), Is.EquivalentTo(new[] { "crc32c_generic", "crc16", "mbcache", "jbd2", "ext4" }));
        Assert.That(plan.Load[0].Name, Is.EqualTo("crc32c_generic"));
        Assert.That(plan.Load[^1].Path, Is.EqualTo(_host.In("fs/ext4/ext4.ko")));
    }

    // Whoever made the directory may have written any path there: none leads to another file of the user's.
    [TestCase("modules.dep", "../virtiofs.ko:\n", false)]
    [TestCase("modules.dep", "/home/virtiofs.ko:\n", false)]
    [TestCase("modules.order", "../virtiofs.o\n", true)]
    [TestCase("modules.order", "/home/virtiofs.ko\n", true)]
    public void Plan_PathThatLeadsOut_IsRefused(string file, string content, bool isBuildTree)
    {
        _host.Add(file, content);

        Assert.That(() => new KernelModules(new GuestKernel("bzImage", isBuildTree ? null : "6.1", _host.Root, isBuildTree)).Plan([new("virtiofs", "CONFIG_VIRTIO_FS")]),
            Throws.TypeOf<VmmException>().With.Message.Contains("is not in that directory"));
    }

    // A list can name a file in its directory that is a link to one of the user's elsewhere. Where the user has not named the directory, that must not get into the guest.
    [TestCase(false, false, true)]
    [TestCase(false, true, false)]
    [TestCase(true, false, true)]
    [TestCase(true, true, false)]
    public void Read_LinkThatLeadsOut_IsAModuleOnlyOfADirectoryThatTheUserHasChosen(bool isBuildTree, bool isConfined, bool expected)
    {
        byte[] content = Module();
        _host.Add("private.ko", content);
        _host.Add("mods/there.ko", content);
        File.CreateSymbolicLink(_host.In("mods/link.ko"), _host.In("private.ko"));
        Directory.CreateSymbolicLink(_host.In("mods/k"), "..");
        _host.Add("mods/modules.dep", "there.ko:\nlink.ko:\nk/private.ko:\n");
        _host.Add("mods/modules.order", "there.o\nlink.o\nk/private.o\n");
        var kernel = new GuestKernel("bzImage", "6.1", _host.In("mods"), isBuildTree, isConfined);

        Assert.That(Load("there"), Is.EqualTo(content));
        foreach (string name in new[] { "link", "private" })
        {
            if (expected)
                Assert.That(Load(name), Is.EqualTo(content));
            else
                Assert.That(() => Load(name), Throws.TypeOf<VmmException>().With.Message.StartsWith($"module {_host.In("mods")}/").And.Message.Contains("is a symbolic link or behind one"));
        }

        byte[] Load(string name) => new KernelModules(kernel).Plan([new GuestDriver(name, "CONFIG_X")]).Load[0].Read();
    }

    [Test]
    public void Plan_BuildTreeWithoutItsModules_SaysMakeModules()
    {
        _host.Add("modules.order", "fs/ext4/ext4.o\n");

        Assert.That(() => new KernelModules(new GuestKernel("bzImage", null, _host.Root, IsBuildTree: true)).Plan([new("ext4", "CONFIG_EXT4_FS")]),
            Throws.TypeOf<VmmException>().With.Message.Contains("make modules"));
    }

    // Every byte of the headers is anything at all.
    [Test]
    [Category("Kernel")]
    public void Values_DamagedModule_NeverThrows()
    {
        byte[] module = File.ReadAllBytes(Path.Combine(Debian("generic").Modules!, "kernel/lib/crc16.ko"));
        Assert.That(new ModuleInformation(module).Values("license"), Is.EqualTo(new[] { "GPL" }));
        var random = new Random(1);
        for (int i = 0; i < 2000; i++)
        {
            byte[] damaged = (byte[])module.Clone();
            for (int j = 0; j < 4; j++)
                damaged[i % 2 == 0 ? random.Next(64) : damaged.Length - 1 - random.Next(64 * 30)] = (byte)random.Next(256);
            Assert.That(() => new ModuleInformation(damaged.AsSpan(0, i % 5 == 0 ? random.Next(damaged.Length) : damaged.Length)).Values("depends"), Throws.Nothing);
        }
    }

    private static byte[] Module()
    {
        byte[] module = new byte[200_000];
        new Random(7).NextBytes(module.AsSpan(0, 100_000));
        "\x7F"u8.CopyTo(module);
        "ELF"u8.CopyTo(module.AsSpan(1));
        return module;
    }

    private static GuestKernel Debian(string flavour)
    {
        string root = LinuxGuest.Artifact("kernels", flavour);
        if (!File.Exists(Path.Combine(root, "release")))
            Assert.Ignore($"artifacts/kernels/{flavour} is missing");
        return KernelSearch.Find(Path.Combine(root, "vmlinuz"), Path.Combine(root, "root"));
    }

    private void AddDependencies(params string[] lines) => _host.Add("modules.dep", string.Join('\n', lines) + "\n");

    private ModulePlan Plan(params string[] names) =>
        new KernelModules(new GuestKernel("bzImage", "6.1.0", _host.Root)).Plan(names.Select(name => new GuestDriver(name, "CONFIG_" + name)));

    private static IEnumerable<string> Names(ModulePlan plan) => plan.Load.Select(module => module.Name);
}
