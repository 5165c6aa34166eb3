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
    public void Open_NestedTooDeeply_IsNoBug()
    {
        using var place = new HostTree();
        File.WriteAllText(place.In("vmm.toml"), "a=" + new string('[', 65));
        Assert.That(() => DefaultsFile.Open(place.In("vmm.toml")), Throws.TypeOf<UsageException>().With.Message.StartsWith($"{place.In("vmm.toml")}: a value is nested too deeply"));
    }

    [TestCase("/project/vmm.toml: line 1: timeout: '5x' is no time", "--timeout: '5x' is no time")]
    [TestCase("/project/vmm.toml: line 3: kernel: cannot open /nope", "kernel: cannot open /nope: check --kernel")]
    [TestCase(null, "--cpus: '0' is too few")]      // the command line's
    [TestCase(null, "--memory: '1' is too little")] // nobody's
    [TestCase(null, "no kernel")]
    public void Explain_Complaint_NamesTheFileWhereItIsTheFiles(string? expected, string message)
    {
        var options = new ExecOptions { Cpus = "0" };
        var origin = new DefaultsOrigin(options) { File = DefaultsFile.Parse(FilePath, "timeout = \"5x\"\ncpus = 4\nkernel = \"/nope\"") };
        origin.File.ApplyTo(options, null);

        Assert.That(origin.Explain(message, options), Is.EqualTo(expected));
    }

    [Test]
    public void Explain_EveryKeyOfTheFile_IsKnown()
    {
        foreach (string key in new[] { "kernel", "modules", "root", "cmdline", "cpus", "memory", "overlay", "timeout", "user", "workdir", "bind", "bind-ro", "env", "net", "port", "disk", "fs" })
        {
            var options = new ExecOptions();
            string value = key is "net" ? "user" : key is "disk" ? "path=x" : key is "fs" ? "tag=x,source=x" : key is "env" ? "A=1" : key is "bind" or "bind-ro" or "kernel" or "modules" or "root" ? "." : "1";
            var origin = new DefaultsOrigin(options) { File = DefaultsFile.Parse(FilePath, $"{key} = \"{value}\"") };
            origin.File.ApplyTo(options, null);

            Assert.That(origin.Explain($"--{key}: is wrong", options), Is.EqualTo($"{FilePath}: line 1: {key}: is wrong"));
        }
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

    // The variant's own counts, and so does its line.
    [Test]
    public void PlaceOf_SettingOfTheVariant_IsItsLine()
    {
        DefaultsFile file = DefaultsFile.Parse(FilePath, Example);
        file.ApplyTo(new ExecOptions(), file.Variant("6.12.9"));

        Assert.That((file.PlaceOf("memory"), file.PlaceOf("timeout"), file.PlaceOf("user")), Is.EqualTo(($"{FilePath}: line 15", $"{FilePath}: line 4", FilePath)));
    }

    // Before the first guest starts.
    [TestCase("cpus = 0", "line 3: cpus: '0'")]
    [TestCase("timeout = \"5x\"", "line 3: timeout: '5x'")]
    [TestCase("memory = \"1\"", "line 3: memory: '1'")]
    [TestCase("cpus = 2\ntimeout = \"1m\"\nmemory = \"1G\"", null)]
    public void CheckedMemory_ValueOfAVariant_IsReadFirst(string text, string? expected)
    {
        DefaultsFile file = DefaultsFile.Parse(FilePath, $"[[matrix]]\nname = \"x\"\n{text}\n");

        if (expected is null)
            Assert.That(MatrixCommand.CheckedMemory(file.Variants[0], file, new ExecOptions()), Is.EqualTo(1UL << 30));
        else
            Assert.That(() => MatrixCommand.CheckedMemory(file.Variants[0], file, new ExecOptions()), Throws.TypeOf<UsageException>().With.Message.StartsWith($"{FilePath}: {expected}"));
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
    [TestCase("cpus = 1\nnonsense = 1", "line 2: unknown key 'nonsense': there are kernel, modules, root, cmdline, cpus, memory, overlay, timeout, user, workdir, bind, bind-ro, env, net, port, disk, fs, and [[matrix]] with these and name")]
    [TestCase("name = \"x\"", "line 1: unknown key 'name'")]
    [TestCase("[[matrix]]\nname = \"x\"\n\nmemroy = \"1G\"", "line 4: unknown key 'memroy'")]
    [TestCase("cpus = 1.5", "line 1: a value is")]
    [TestCase("\nmemory = [\"1G\", \"2G\"]", "line 2: memory has 2 values")]
    [TestCase("[[matrix]]\nname = []", "line 2: name has 0 values")]
    [TestCase("[[matrix]]\nkernel = []", "kernel has 0 values")]
    [TestCase("[[matrix]]\nname = [\"a\", \"b\"]", "name has 2 values")]
    [TestCase("root = []", "root has 0 values")]
    [TestCase("[[other]]\na = 1", "'other' is no table")]
    [TestCase("[matrix]\na = 1", "'matrix' is no table")]
    [TestCase("a.b = 1", "dots")]
    [TestCase("rw = 1", "unknown key 'rw'")]
    [TestCase("allow-setuid = 1", "unknown key 'allow-setuid'")]
    [TestCase("cpus = 1\nenv = [\"A=b\\u001fC=d\"]", "line 2: a text must not have control characters in it, such as U+001F")]
    [TestCase("kernel = \"a\\u0000b\"", "line 1: a text must not have control characters in it, such as U+0000")]
    [TestCase("workdir = \"/\\u001b]52;c;YQ==\\u0007\"", "line 1: a text must not have control characters in it, such as U+001B")]
    [TestCase("[[matrix]]\nname = \"a\\u009bm\"", "line 2: a text must not have control characters in it, such as U+009B")]
    [TestCase("cmdline = \"a\\nb\"", "line 1: a text must not have control characters in it, such as U+000A")]
    [TestCase("env = { A = \"a\\rb\" }", "line 1: a text must not have control characters in it, such as U+000D")]
    [TestCase("env = { \"A\\n\" = \"a\" }", "line 1: a text must not have control characters in it, such as U+000A")]
    [TestCase("cpus = 1\nfs = [\"tag=t,source=/s,privileged=on\"]", "line 2: fs: privileged=on is for the command line")]
    [TestCase("fs = [\"tag=t,source=/s,privileged=true\"]", "fs: privileged=true is for the command line")]
    [TestCase("[[matrix]]\nname = \"x\"\n[[matrix]]\nname = \"x\"", "'x' already")]
    public void Parse_WhatIsWrong_IsToldInOneLine(string text, string expected)
    {
        UsageException error = Assert.Throws<UsageException>(() => Apply(text, new ExecOptions()))!;
        Assert.That(error.Message, Does.StartWith($"{FilePath}: ").And.Contain(expected));
    }

    [Test]
    public void ApplyTo_Variable_CanHaveSeveralLines() =>
        Assert.That(Apply("env = { A = \"b\\n\\tc\" }", new ExecOptions()).Env, Is.EqualTo("A=b\n\tc"));

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
    [TestCase("disk = [\"path=in/a.img,readonly=off\"]", "disk: readonly=off ")]
    [TestCase("disk = [\"path=in/a.img,lock=off\"]", "disk: lock=")]
    [TestCase("fs = [\"tag=x,source=in,readonly=off\"]", "fs: readonly=off ")]
    [TestCase("fs = [\"tag=x,source=in,readonly=false\"]", "fs: readonly=false ")]
    [TestCase("fs = [\"tag=x,source=in,dax=on\"]", "fs: dax=")]
    [TestCase("cpus = \"boot=2,nested=on\"", "cpus: nested=")]
    [TestCase("cpus = \"pmu=on\"", "cpus: pmu=")]
    [TestCase("cpus = \"boot=2,amx=on\"", "cpus: amx=")]
    [TestCase("memory = \"size=8G,prefault=on\"", "memory: prefault=")]
    [TestCase("memory = \"size=8G,hugepages=on,hugepage_size=1G\"", "memory: hugepages=")]
    [TestCase("[[matrix]]\nname = \"x\"\ncpus = \"nested=on\"", "cpus: nested=")]
    [TestCase("fs = [\"tag=x,source=/\"]", "fs: / ")]
    [TestCase("fs = [\"tag=x,source=out\"]", "fs: ")]
    [TestCase("bind = [\"/etc\"]", "bind: /etc")]
    [TestCase("bind = [\"in\", \"..\"]", "bind: ")]
    [TestCase("bind = [\"out:/mnt\"]", "bind: ")]
    [TestCase("bind-ro = [\"out/ssl\"]", "bind-ro: ")]
    [TestCase("root = \"/\"", "root: / ")]
    [TestCase("root = \"out\"", "root: ")]
    [TestCase("net = [\"user\"]", "net ")]
    [TestCase("env = [\"A=1\", \"GITHUB_TOKEN\"]", "env: GITHUB_TOKEN ")]
    [TestCase("port = [\"80:80\"]", "port ")]
    [TestCase("[[matrix]]\nname = \"x\"\nroot = \"/\"", "root: / ")]
    public void ApplyTo_FileThatWasFound_GivesNothingOutsideOfItsDirectory(string text, string what)
    {
        using HostTree place = Untrusted();
        string path = Path.Combine(place.Root, "project/vmm.toml");

        UsageException error = Assert.Throws<UsageException>(() => ApplyAs(isNamed: false))!;
        Assert.That(error.Message, Does.Match($"\\A{path}: line [123]: ").And.Contain($": {what}").And.Contain("allowed only in a file that --config names").And.EndsWith($"--config {path}"));
        Assert.That(() => ApplyAs(isNamed: true), Throws.Nothing);

        void ApplyAs(bool isNamed)
        {
            DefaultsFile file = DefaultsFile.Parse(path, text, isNamed);
            file.ApplyTo(new ExecOptions(), file.Variants.Count > 0 ? file.Variants[0] : null);
        }
    }

    [Test]
    public void ApplyTo_FileThatWasFound_GivesWhatIsInItsDirectoryForReading()
    {
        using HostTree place = Untrusted();
        string project = Path.Combine(place.Root, "project"), file = Path.Combine(project, "vmm.toml");
        var options = new ExecOptions();

        IReadOnlyList<string> notes = DefaultsFile.Parse(file, """
            root = "in"
            bind = [".", "in:/etc"]
            bind-ro = ["link"]
            disk = ["path=in/a.img", "readonly=on,path=in/a.img"]
            fs = ["tag=x,source=in", "tag=y,source=in,readonly=true"]
            kernel = "../kernel"
            modules = "/lib/modules"
            cpus = "boot=2,profile=x86-64-v2"
            memory = "size=8G"
            """, isNamed: false).ApplyTo(options, null);

        Assert.That((options.Root, options.Bind, options.Cpus, options.Memory), Is.EqualTo(($"{project}/in", (string?)null, "boot=2,profile=x86-64-v2", "size=8G")));
        Assert.That(RepeatableOptions.Values(options.BindReadOnly), Is.EqualTo(new[] { $"{project}/link", $"{project}/.", $"{project}/in:/etc" }));
        Assert.That(RepeatableOptions.Values(options.Disk), Is.EqualTo(new[] { $"path={project}/in/a.img,readonly=on", $"readonly=on,path={project}/in/a.img" }));
        Assert.That(RepeatableOptions.Values(options.Fs), Is.EqualTo(new[] { $"tag=x,source={project}/in,readonly=on", $"tag=y,source={project}/in,readonly=true" }));
        Assert.That((options.Kernel, options.Modules), Is.EqualTo(($"{place.Root}/kernel", "/lib/modules")));
        Assert.That(notes, Is.EqualTo(new[] { ("bind", $"{project}", "--bind"), ("bind", $"{project}/in", "--bind"), ("disk", $"{project}/in/a.img", "--disk"), ("fs", $"{project}/in", "--fs") }
            .Select(less => $"{file}: {less.Item1}: the guest may only read {less.Item2}, since --config does not name this file: for writing say {less.Item3} on the command line, "
                + $"or add --config {file}")));
    }

    [Test]
    public void ApplyTo_FileThatIsNamed_GivesForWriting()
    {
        using HostTree place = Untrusted();
        string project = Path.Combine(place.Root, "project");
        var options = new ExecOptions();

        IReadOnlyList<string> notes = DefaultsFile.Parse(Path.Combine(project, "vmm.toml"), "bind = [\".\"]\ndisk = [\"path=in/a.img\"]\nfs = [\"tag=x,source=in\"]").ApplyTo(options, null);

        Assert.That((options.Bind, options.BindReadOnly, options.Disk, options.Fs), Is.EqualTo(($"{project}/.", (string?)null, $"path={project}/in/a.img", $"tag=x,source={project}/in")));
        Assert.That(notes, Is.Empty);
    }

    // What the user himself gives for writing is for writing, by whatever names the file calls it.
    [TestCase("--bind", "@", true)]
    [TestCase("--bind", "@/in/..:/mnt", true)]
    [TestCase("--bind", "@/..", true)]
    [TestCase("--bind", "@/in", false)]
    [TestCase("--bind-ro", "@", false)]
    [TestCase("--fs", "tag=a,source=@", true)]
    [TestCase("--fs", "tag=a,source=@,readonly=on", false)]
    [TestCase("--rw", null, true)]
    public void ApplyTo_FileThatWasFound_GivesForWritingWhatTheCommandLineDoes(string option, string? value, bool expected)
    {
        using HostTree place = Untrusted();
        string project = Path.Combine(place.Root, "project");
        var options = (ExecOptions)Verbs.Parse(["exec", option, .. value is null ? Array.Empty<string>() : [value.Replace("@", project, StringComparison.Ordinal)]]);

        DefaultsFile.Parse(Path.Combine(project, "vmm.toml"), "bind = [\"link/..\"]\ndisk = [\"path=in/../in/a.img\"]", isNamed: false).ApplyTo(options, null);

        Assert.That(RepeatableOptions.Values(expected ? options.Bind : options.BindReadOnly), Does.Contain($"{project}/link/.."));
        Assert.That(options.Disk, Is.EqualTo($"path={project}/in/a.img{(expected || value == "@/in" ? "" : ",readonly=on")}"));
    }

    // The directory that the file calls the root is not all of this host.
    [TestCase("root = \"in\"\nbind = [\"link\"]", true)]
    [TestCase("bind = [\".\"]\nroot = \"in\"", false)]
    public void ApplyTo_RootForWriting_IsThatOfTheFile(string text, bool expected)
    {
        using HostTree place = Untrusted();
        var options = new ExecOptions { ReadWrite = true };

        DefaultsFile.Parse(place.In("project/vmm.toml"), text, isNamed: false).ApplyTo(options, null);

        Assert.That((options.Bind is not null, options.BindReadOnly is not null), Is.EqualTo((expected, !expected)));
    }

    [TestCase("kernel = \"./bzImage\"", true)]
    [TestCase("modules = \"mods\"", true)]
    [TestCase("kernel = \"./bzImage\"\nmodules = \"mods\"", true)]
    [TestCase("kernel = \"6.1.0-not-installed\"", false)]
    [TestCase("kernel = \"./bzImage\"", false, "--modules", "/lib/modules")]
    [TestCase("kernel = \"./bzImage\"", false, "--kernel", "x")]
    [TestCase("modules = \"mods\"", true, "--kernel", "x")]
    public void ApplyTo_FileThatWasFound_TellsWhoHasChosenTheModules(string text, bool expected, params string[] args)
    {
        ExecOptions found = (ExecOptions)Verbs.Parse(["exec", .. args]), named = (ExecOptions)Verbs.Parse(["exec", .. args]);

        DefaultsFile.Parse(FilePath, text, isNamed: false).ApplyTo(found, null);
        DefaultsFile.Parse(FilePath, text, isNamed: true).ApplyTo(named, null);

        Assert.That((found.AreModulesFound, named.AreModulesFound), Is.EqualTo((expected, false)));
    }

    [Test]
    public void Open_FileThatIsNamed_IsReadWhoseverItIs()
    {
        using var place = new HostTree();
        File.SetUnixFileMode(place.Add("other.toml", "[[matrix]]\nname = \"it\"\n"), Mode("666"));

        Assert.That(DefaultsFile.Open(Path.Combine(place.Root, "other.toml")).Variants, Has.Count.EqualTo(1));
        Assert.That(() => DefaultsFile.Open(place.Root), Throws.TypeOf<UsageException>().With.Message.EqualTo($"--config: '{place.Root}' is a directory, not a file: give the path of a file such as vmm.toml"));
        Assert.That(() => DefaultsFile.Open(""), Throws.TypeOf<UsageException>().With.Message.EqualTo("--config: '' is empty: give the path of a file such as vmm.toml"));
        Assert.That(() => DefaultsFile.Open("/no/such"), Throws.TypeOf<UsageException>().With.Message.EqualTo("--config: cannot open /no/such: No such file or directory (errno 2): give the path of a file such as vmm.toml"));
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
