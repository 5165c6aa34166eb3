using NUnit.Framework;
using Vmm.Cli;
using Vmm.Cli.Exec;
using Vmm.Tests.Guest;
using Vmm.Tests.Integration.Linux.Devices;

namespace Vmm.Tests.Cli.Exec;

[System.Runtime.Versioning.SupportedOSPlatform("linux")]
public sealed class DefaultsFileTests
{
    private const string FilePath = "/project/vmm.toml";

    private const string Example = """
        kernel = "kernels/bzImage"
        cpus = 4
        memory = "2G"
        timeout = "10m"
        bind = [".", "data:/data"]
        env = { LANG = "C.UTF-8", LEVEL = 3 }

        [[matrix]]
        name = "old"
        kernel = "6.1.0-56-cloud-amd64"
        bind = ["old"]

        [[matrix]]
        kernel = "6.12.9"
        memory = "1G"
        """;

    [Test]
    public void ApplyTo_NothingSaid_GivesWhatTheFileSays()
    {
        ExecOptions options = Apply(Example, new ExecOptions());

        Assert.That((options.Kernel, options.Cpus, options.Memory, options.Timeout), Is.EqualTo(("/project/kernels/bzImage", "4", "2G", "10m")));
        Assert.That(RepeatableOptions.Values(options.Bind), Is.EqualTo(new[] { "/project/.", "/project/data:/data" }));
        Assert.That(RepeatableOptions.Values(options.Env), Is.EqualTo(new[] { "LANG=C.UTF-8", "LEVEL=3" }));
    }

    [Test]
    public void ApplyTo_KernelWithoutASlash_IsInTheFilesDirectoryIfItIsThere()
    {
        using var place = new HostTree();
        place.Add("bzImage");
        string path = place.In("vmm.toml");
        ExecOptions there = new(), notThere = new();

        DefaultsFile.Parse(path, "kernel = \"bzImage\"").ApplyTo(there, null);
        DefaultsFile.Parse(path, "kernel = \"6.1.0-not-installed\"").ApplyTo(notThere, null);

        Assert.That((there.Kernel, notThere.Kernel), Is.EqualTo((place.In("bzImage"), "6.1.0-not-installed")));
    }

    [Test]
    public void ApplyTo_WhatIsSaid_CountsBeforeTheFile()
    {
        ExecOptions options = Apply(Example, new ExecOptions { Cpus = "1", Env = "LEVEL=5" });

        Assert.That((options.Cpus, options.Memory), Is.EqualTo(("1", "2G")));
        Assert.That(RepeatableOptions.Values(options.Env)[^1], Is.EqualTo("LEVEL=5"));
    }

    [Test]
    public void ApplyTo_Variant_CountsBeforeTheRestOfTheFile()
    {
        DefaultsFile file = DefaultsFile.Parse(FilePath, Example);
        Assert.That(file.Variants.Select(variant => variant.Name), Is.EqualTo(new[] { "old", "6.12.9" }));
        ExecOptions options = new();
        file.ApplyTo(options, file.Variant("old"));
        Assert.That((options.Kernel, options.Memory), Is.EqualTo(("6.1.0-56-cloud-amd64", "2G")));
        Assert.That(RepeatableOptions.Values(options.Bind), Is.EqualTo(new[] { "/project/.", "/project/data:/data", "/project/old" }));
    }

    [Test]
    public void ApplyTo_TableOfVariables_AreVariables() =>
        Assert.That(RepeatableOptions.Values(Apply("[env]\nA = \"b\"\n", new ExecOptions()).Env), Is.EqualTo(new[] { "A=b" }));

    [TestCase("disk = [\"readonly=on,path=a.img\"]", "readonly=on,path=/project/a.img")]
    [TestCase("disk = ['path=\"a,b.img\",direct=on']", "path=\"/project/a,b.img\",direct=on")]
    [TestCase("disk = [\"path=/abs.img\"]", "path=/abs.img")]
    [TestCase("fs = [\"tag=path=x,source=sub\"]", "tag=path=x,source=/project/sub")]
    [TestCase("fs = [\"tag=t,source=/s,daemon=bin/d\"]", "tag=t,source=/s,daemon=/project/bin/d")]
    [TestCase("fs = [\"socket=run/fs.sock\"]", "socket=/project/run/fs.sock")]
    [TestCase("net = [\"socket=run/switch\"]", "socket=/project/run/switch")]
    [TestCase("net = [\"tap=tap0,ip=10.0.0.2/24\"]", "tap=tap0,ip=10.0.0.2/24")]
    public void ApplyTo_PathOfADevice_IsRelativeToTheFile(string text, string expected)
    {
        ExecOptions options = Apply(text, new ExecOptions());

        Assert.That(options.Disk ?? options.Fs ?? options.Net, Is.EqualTo(expected));
    }

    [TestCase("kernel = ", "line 1")]
    [TestCase("cpus = 1\ncpus = 2", "line 2")]
    [TestCase("nonsense = 1", "unknown key 'nonsense'")]
    [TestCase("cpus = 1.5", "line 1: a value is")]
    [TestCase("memory = [\"1G\", \"2G\"]", "memory has 2 values")]
    [TestCase("[[matrix]]\nname = []", "name has 0 values")]
    [TestCase("[[matrix]]\nkernel = []", "kernel has 0 values")]
    [TestCase("[[matrix]]\nname = [\"a\", \"b\"]", "name has 2 values")]
    [TestCase("root = []", "root has 0 values")]
    [TestCase("[[other]]\na = 1", "'other' is no table")]
    [TestCase("[matrix]\na = 1", "'matrix' is no table")]
    [TestCase("a.b = 1", "dots")]
    [TestCase("cpus = 1\nenv = [\"A=b\\u001fC=d\"]", "line 2: a text must not have the control characters")]
    [TestCase("kernel = \"a\\u0000b\"", "line 1: a text must not have the control characters")]
    [TestCase("[[matrix]]\nname = \"x\"\n[[matrix]]\nname = \"x\"", "'x' already")]
    public void Parse_WhatIsWrong_IsToldInOneLine(string text, string expected)
    {
        UsageException error = Assert.Throws<UsageException>(() => Apply(text, new ExecOptions()))!;
        Assert.That(error.Message, Does.StartWith($"{FilePath}: ").And.Contain(expected));
    }

    [Test]
    public void Variant_ThatIsNotThere_NamesThose()
    {
        DefaultsFile file = DefaultsFile.Parse(FilePath, Example);
        Assert.That(() => file.Variant("new"), Throws.TypeOf<UsageException>().With.Message.EndsWith("there are old, 6.12.9"));
    }

    [Test]
    public void Find_DirectoryBelow_IsTheNearestFileAbove()
    {
        DirectoryInfo directory = Directory.CreateTempSubdirectory("vmm-test-");
        try
        {
            DirectoryInfo below = directory.CreateSubdirectory("a/b");
            File.WriteAllText(Path.Combine(directory.FullName, "vmm.toml"), "[[matrix]]\nname = \"far\"\n");
            File.WriteAllText(Path.Combine(directory.FullName, "a", "vmm.toml"), "[[matrix]]\nname = \"near\"\n");
            Assert.That(DefaultsFile.Find(below.FullName)!.Variants[0].Name, Is.EqualTo("near"));
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    [TestCase("fs = [\"tag=x,source=.,daemon=evil\"]", "fs: daemon=")]
    [TestCase("fs = [\"socket=evil\"]", "fs: socket=")]
    [TestCase("disk = [\"socket=evil\"]", "disk: socket=")]
    [TestCase("disk = [\"fd=3\"]", "disk: fd=")]
    [TestCase("disk = [\"path=/etc/hostname\"]", "disk: /etc/hostname")]
    [TestCase("disk = [\"path=file\"]", "disk: ")]
    [TestCase("fs = [\"tag=x,source=/\"]", "fs: /,")]
    [TestCase("fs = [\"tag=x,source=out\"]", "fs: ")]
    [TestCase("bind = [\"/etc\"]", "bind: /etc")]
    [TestCase("bind = [\"in\", \"..\"]", "bind: ")]
    [TestCase("bind = [\"out:/mnt\"]", "bind: ")]
    [TestCase("bind-ro = [\"out/ssl\"]", "bind-ro: ")]
    [TestCase("root = \"/\"", "root: /,")]
    [TestCase("root = \"out\"", "root: ")]
    [TestCase("net = [\"user\"]", "net ")]
    [TestCase("env = [\"A=1\", \"GITHUB_TOKEN\"]", "env: GITHUB_TOKEN ")]
    [TestCase("port = [\"80:80\"]", "port ")]
    [TestCase("[[matrix]]\nname = \"x\"\nroot = \"/\"", "root: /,")]
    public void ApplyTo_FileThatWasFound_GivesNothingOutsideOfItsDirectory(string text, string what)
    {
        using HostTree place = Untrusted();
        string path = Path.Combine(place.Root, "project/vmm.toml");

        UsageException error = Assert.Throws<UsageException>(() => ApplyAs(isNamed: false))!;
        Assert.That(error.Message, Does.StartWith($"{path}: {what}").And.Contain("not for a file that was found").And.EndsWith($"--config {path}"));
        Assert.That(() => ApplyAs(isNamed: true), Throws.Nothing);

        void ApplyAs(bool isNamed)
        {
            DefaultsFile file = DefaultsFile.Parse(path, text, isNamed);
            file.ApplyTo(new ExecOptions(), file.Variants.Count > 0 ? file.Variants[0] : null);
        }
    }

    [Test]
    public void ApplyTo_FileThatWasFound_GivesWhatIsInItsDirectory()
    {
        using HostTree place = Untrusted();
        string project = Path.Combine(place.Root, "project");
        var options = new ExecOptions();

        DefaultsFile.Parse(Path.Combine(project, "vmm.toml"), """
            root = "in"
            bind = [".", "in:/etc"]
            bind-ro = ["link"]
            disk = ["path=in/a.img"]
            fs = ["tag=x,source=in"]
            kernel = "../kernel"
            modules = "/lib/modules"
            """, isNamed: false).ApplyTo(options, null);

        Assert.That((options.Root, options.Disk, options.Fs), Is.EqualTo(($"{project}/in", $"path={project}/in/a.img", $"tag=x,source={project}/in")));
        Assert.That(RepeatableOptions.Values(options.Bind), Is.EqualTo(new[] { $"{project}/.", $"{project}/in:/etc" }));
        Assert.That((options.BindReadOnly, options.Kernel, options.Modules), Is.EqualTo(($"{project}/link", $"{place.Root}/kernel", "/lib/modules")));
    }

    [Test]
    public void Open_FileThatIsNamed_IsReadWhoseverItIs()
    {
        using var place = new HostTree();
        File.SetUnixFileMode(place.Add("other.toml", "[[matrix]]\nname = \"it\"\n"), Mode("666"));

        Assert.That(DefaultsFile.Open(Path.Combine(place.Root, "other.toml")).Variants, Has.Count.EqualTo(1));
        Assert.That(() => DefaultsFile.Open(place.Root), Throws.TypeOf<UsageException>().With.Message.EqualTo($"--config: '{place.Root}' is a directory, not a file"));
        Assert.That(() => DefaultsFile.Open(""), Throws.TypeOf<UsageException>().With.Message.StartsWith("--config: "));
        Assert.That(() => DefaultsFile.Open("/no/such"), Throws.TypeOf<UsageException>().With.Message.StartsWith("--config: cannot open /no/such"));
    }

    // A project with links that lead out of it.
    private static HostTree Untrusted()
    {
        var place = new HostTree();
        place.Add("project/in/a.img");
        File.CreateSymbolicLink(place.In("project/out"), "/etc");
        File.CreateSymbolicLink(place.In("project/file"), "/etc/hostname");
        File.CreateSymbolicLink(place.In("project/link"), "in");
        return place;
    }

    [TestCase("777", "644", "its directory")]
    [TestCase("755", "666", "others may write to it")]
    public void Find_OthersMayChangeIt_IsRefused(string directoryMode, string fileMode, string why)
    {
        using var place = new HostTree();
        File.SetUnixFileMode(place.Add("vmm.toml", "cpus = 4\n"), Mode(fileMode));
        File.SetUnixFileMode(place.Root, Mode(directoryMode));

        Assert.That(() => DefaultsFile.Find(place.Root), Throws.TypeOf<UsageException>().With.Message.StartsWith($"{place.Root}/vmm.toml").And.Message.Contains(why));
    }

    [Test]
    public void Find_DirectoryOfAll_IsAcceptedWhereNobodyCanReplaceTheFile()
    {
        using var place = new HostTree();
        place.Add("vmm.toml", "[[matrix]]\nname = \"it\"\n");
        File.SetUnixFileMode(place.Root, Mode("1777"));

        Assert.That(DefaultsFile.Find(place.Root)!.Variants, Has.Count.EqualTo(1));
    }

    [Test]
    public void Find_Link_IsRefused()
    {
        using var place = new HostTree();
        place.Add("other", "cpus = 4\n");
        File.CreateSymbolicLink(Path.Combine(place.Root, "vmm.toml"), "other");

        Assert.That(() => DefaultsFile.Find(place.Root), Throws.TypeOf<UsageException>().With.Message.Contains("is a symbolic link"));
    }

    [Test]
    public void Find_Fifo_IsRefusedAndNobodyWaits()
    {
        using var place = new HostTree();
        HostCommand.Run("mkfifo", Path.Combine(place.Root, "vmm.toml"));

        Assert.That(() => DefaultsFile.Find(place.Root), Throws.TypeOf<UsageException>().With.Message.Contains("is a FIFO, not a file"));
    }

    private static UnixFileMode Mode(string octal) => (UnixFileMode)Convert.ToInt32(octal, 8);

    private static ExecOptions Apply(string text, ExecOptions options)
    {
        DefaultsFile.Parse(FilePath, text).ApplyTo(options, null);
        return options;
    }
}
