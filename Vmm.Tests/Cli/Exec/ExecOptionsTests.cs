using NUnit.Framework;
using NUnit.Framework.Constraints;
using Vmm.Cli;
using Vmm.Cli.Exec;
using Vmm.Guest;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Cli.Exec;

public sealed class ExecOptionsTests
{
    private static readonly (bool, bool, bool) s_terminal = (true, true, true), s_pipes = (false, false, false);

    [Test]
    public void Parse_WhatStandsBehindTheDashes_IsTheCommandAsItIs()
    {
        ExecOptions options = Parse("exec", "--rw", "--bind", "a", "--bind", "b", "--", "--help", "--", "-x", "--bind", "c");

        Assert.That(options.Command, Is.EqualTo(new[] { "--help", "--", "-x", "--bind", "c" }));
        Assert.That(options.ReadWrite, Is.True);
        Assert.That(RepeatableOptions.Values(options.Bind), Is.EqualTo(new[] { "a", "b" }));
    }

    [Test]
    public void Parse_CommandWithoutDashes_IsRefused() =>
        Assert.That(() => Parse("exec", "--rw", "ls"), Throws.TypeOf<UsageException>().With.Message.EqualTo("'ls': unexpected argument: write -- before the command (see vmm exec --help)"));

    [Test]
    public void ReadCommand_OnATerminal_HasOneUnlessOneIsNotWanted()
    {
        Assert.That(Command(s_terminal, "exec").HasTerminal, Is.True);
        Assert.That(Command(s_terminal, "exec", "--no-tty", "--", "x").HasTerminal, Is.False);
        Assert.That(Command((true, false, true), "exec", "--", "x").HasTerminal, Is.False);
        Assert.That(Command(s_pipes, "exec", "--", "x").HasTerminal, Is.False);
        Assert.That(Command(s_pipes, "exec", "--tty", "--", "x").HasTerminal, Is.True);
        Assert.That(Command((true, true, false), "exec", "--", "x"), Has.Property(nameof(GuestCommand.HasTerminalError)).False);
    }

    [Test]
    public void ReadCommand_OutputAndErrorAreTheSameFile_AreOneStreamUnlessThereIsATerminal()
    {
        Assert.That(ExecOptionsReader.ReadCommand(Parse("exec", "--", "x"), s_pipes, isErrorOutput: true).IsErrorOutput, Is.True);
        Assert.That(ExecOptionsReader.ReadCommand(Parse("exec", "--", "x"), s_pipes).IsErrorOutput, Is.False);
        Assert.That(ExecOptionsReader.ReadCommand(Parse("exec", "--", "x"), s_terminal, isErrorOutput: true).IsErrorOutput, Is.False);
        Assert.That(ExecOptionsReader.ReadCommand(Parse("exec", "--", "x"), (false, true, true), isErrorOutput: true).IsErrorOutput, Is.True);
    }

    // Whoever writes 2>FILE wants the errors there.
    [TestCase(true, true, true, ExpectedResult = true)]
    [TestCase(true, true, false, ExpectedResult = false)]
    [TestCase(false, true, false, ExpectedResult = false)]
    [TestCase(true, false, true, ExpectedResult = true)]
    [TestCase(true, false, false, ExpectedResult = true)]
    [TestCase(false, false, false, ExpectedResult = true)]
    public bool ReadCommand_Tty_ErrorIsTheTerminalUnlessOnlyOutputIsOneHere(bool input, bool output, bool error) => Command((input, output, error), "exec", "--tty", "--", "x").HasTerminalError;

    [Test]
    public void ReadCommand_Umask_IsThatOfHere() => Assert.That(Command(s_pipes, "exec", "--", "x").Umask, Is.EqualTo(ProcessUmask.Read()));

    [Test]
    public void Help_Net_HasTheKeysOfExec()
    {
        static string Help(string verb) => string.Join(' ', ((string)Verbs.Parse([verb, "--help"])).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));

        Assert.That(Help("exec"), Does.Contain("[,ip=ADDRESS/PREFIX[,gateway=ADDRESS]]"));
        Assert.That(Help("run"), Does.Not.Contain("ip=ADDRESS/PREFIX"));
    }

    [Test]
    public void ReadCommand_Quiet_IsTheAgentToo()
    {
        Assert.That(Command(s_pipes, "exec", "--quiet", "--", "x").IsQuiet, Is.True);
        Assert.That(Command(s_pipes, "exec", "--", "x").IsQuiet, Is.False);
    }

    // git takes this user for one whose directories it trusts.
    [TestCase("1000", 1000u)]
    [TestCase("1000", 1000u, "--user", "root")]
    [TestCase("1000", 1000u, "--user", "0:5")]
    [TestCase(null, 1000u, "--user", "games")]
    [TestCase(null, 0u)]
    public void SudoUser_CommandOfRoot_IsAnOrdinaryCaller(string? expected, uint caller, params string[] args) =>
        Assert.That(ExecOptionsReader.SudoUser(Parse(["exec", .. args, "--", "x"]), caller), Is.EqualTo(expected));

    [Test]
    public void ReadCommand_NoneAndNoTerminal_IsRefused() =>
        Assert.That(() => Command(s_pipes, "exec"), Throws.TypeOf<UsageException>().With.Message.StartsWith("no command"));

    [Test]
    public void ReadCommand_Variables_AreThoseOfHereUnlessSaidOtherwise()
    {
        IReadOnlyList<string> variables = Command(s_pipes, "exec", "--env", "LANG=xx", "--env", "A=b=c", "--env", "VMM_NOT_SET_ANYWHERE", "--", "x").Environment;

        Assert.That(variables, Does.Contain("LANG=xx").And.Contain("A=b=c"));
        Assert.That(variables, Has.Some.StartsWith($"PATH={Environment.GetEnvironmentVariable("PATH")}"));
        Assert.That(variables, Has.None.StartsWith("VMM_NOT_SET_ANYWHERE"));
    }

    [Test]
    public void ReadCommand_NameOfTheWorkingDirectory_IsToldWhereItLeadsThere()
    {
        string link = Path.Combine(Path.GetTempPath(), $"test-{Guid.NewGuid():N}");
        File.CreateSymbolicLink(link, Environment.CurrentDirectory);
        string? before = Environment.GetEnvironmentVariable("PWD");
        try
        {
            Assert.That(PwdWith(link), Is.EqualTo(new[] { $"PWD={link}" }));
            Assert.That(PwdWith(link, "--workdir", "/"), Is.Empty);
            Assert.That(PwdWith(Path.GetTempPath()), Is.Empty, "another directory");
            Assert.That(PwdWith("/no/such"), Is.Empty);
            Assert.That(PwdWith("."), Is.Empty);
            Assert.That(PwdWith(null), Is.Empty);
        }
        finally
        {
            Environment.SetEnvironmentVariable("PWD", before);
            File.Delete(link);
        }

        string[] PwdWith(string? value, params string[] options)
        {
            Environment.SetEnvironmentVariable("PWD", value);
            return [.. Command(s_pipes, ["exec", .. options, "--", "x"]).Environment.Where(variable => variable.StartsWith("PWD=", StringComparison.Ordinal))];
        }
    }

    // The command is root's, and an ordinary user has no sbin here.
    [TestCase("/bin:/usr/sbin", ExpectedResult = "/bin:/usr/sbin:/usr/local/sbin:/sbin")]
    [TestCase("/usr/local/sbin:/usr/sbin:/sbin", ExpectedResult = "/usr/local/sbin:/usr/sbin:/sbin")]
    [TestCase("", ExpectedResult = "/usr/local/sbin:/usr/sbin:/sbin")]
    [TestCase(":/bin", ExpectedResult = ":/bin:/usr/local/sbin:/usr/sbin:/sbin")]
    public string WithSbin_PathOfAUser_HasWhatRootNeeds(string path) => ExecOptionsReader.WithSbin(path);

    [Test]
    public void ReadCommand_PathThatIsGivenOrOfAUser_StaysAsItIs()
    {
        Assert.That(Command(s_pipes, "exec", "--env", "PATH=/x", "--", "x").Environment, Does.Contain("PATH=/x"));
        Assert.That(Command(s_pipes, "exec", "--user", "games", "--", "x").Environment, Does.Contain($"PATH={Environment.GetEnvironmentVariable("PATH")}"));
    }

    // Another root has another home, and so may a guest that runs already.
    [TestCase(true)]
    [TestCase(true, "--root", "/")]
    [TestCase(true, "--root", "/usr/..")]
    [TestCase(false, "--root", "/usr")]
    [TestCase(false, "--root", "")]     // which is refused later
    [TestCase(false, "--attach", "it")]
    [TestCase(false, "--user", "games")]
    public void ReadCommand_Home_IsThatOfHereOnlyForRootInTheRootOfHere(bool isTold, params string[] args) =>
        Assert.That(Command(s_pipes, ["exec", .. args, "--", "x"]).Environment.Any(variable => variable.StartsWith("HOME=", StringComparison.Ordinal)), Is.EqualTo(isTold));

    [TestCase("type=blk,socket=/s", "virtio_blk", false)]
    [TestCase("type=net,socket=/s", "virtio_net", false)]
    [TestCase("type=gpio,socket=/s", "gpio_virtio", true)]
    public void Drivers_OfAVhostUserDevice_AreThoseOfItsType(string device, string module, bool isOptional) =>
        Assert.That(ExecOptionsReader.Drivers(Parse("exec", "--vhost-user", device)), Has.Some.Matches<GuestDriver>(driver => driver.Module == module && driver.IsOptional == isOptional));

    // What it is, is known only once it is open.
    [Test]
    public void Drivers_OfAVdpaDevice_AreThoseOfNetworksAndDisksWhereTheKernelHasThem() => Assert.That(
        ExecOptionsReader.Drivers(Parse("exec", "--vdpa", "path=/dev/vhost-vdpa-0")).Where(driver => driver.Module is "virtio_net" or "virtio_blk"),
        Has.Exactly(2).Items.And.All.Property(nameof(GuestDriver.IsOptional)).True);

    [TestCase("--env", "=x", "has no name")]
    [TestCase("--workdir", "relative", "is not an absolute path")]
    [TestCase("--user", "", "is empty: name a user")]
    public void ReadCommand_WrongValue_IsRefused(string option, string value, string why) =>
        Assert.That(() => Command(s_pipes, "exec", option, value, "--", "x"), Throws.TypeOf<UsageException>().With.Message.StartsWith($"{option}: '{value}' {why}"));

    [TestCase("--timeout", "10x")]
    [TestCase("--timeout", "0")]
    [TestCase("--timeout", "9999h")]
    public void ReadTimeout_WrongValue_IsRefused(string option, string value) =>
        Assert.That(() => ExecOptionsReader.ReadTimeout(Parse("exec", option, value)), Throws.TypeOf<UsageException>().With.Message.StartsWith($"{option}: '{value}' "));

    [TestCase("1500ms", 1.5)]
    [TestCase("90", 90)]
    [TestCase("90s", 90)]
    [TestCase("10m", 600)]
    [TestCase("2h", 7200)]
    public void ReadTimeout_Time_IsThat(string text, double seconds) =>
        Assert.That(ExecOptionsReader.ReadTimeout(Parse("exec", "--timeout", text)), Is.EqualTo(TimeSpan.FromSeconds(seconds)));

    [TestCase("user,port=80:81+82:83", "--port", "80:81", "--port", "82:83")]
    [TestCase("user,host=on,port=80:81+udp:1:2", "--net", "user,host=on", "--port", "80:81", "--port", "udp:1:2")]
    [TestCase("user,mac=02:00:00:00:00:07,port=80:81", "--net", "user,mac=02:00:00:00:00:07", "--port", "80:81")]
    public void Port_WithAndWithoutItsDevice_IsOneOfTheUsersNetwork(string device, params string[] args)
    {
        ExecOptions options = Parse(["exec", "--net", "tap=a", .. args]);
        var description = new GuestDescription();

        ExecOptionsReader.Describe(options, description);

        Assert.That(RepeatableOptions.Values(ExecOptionsReader.ToRun(options, "k", "i", "s").Net), Is.EqualTo(new[] { "tap=a", device }));
        Assert.That(description.Lines, Does.Contain("address eth1 10.0.2.15/24 10.0.2.2"));
        Assert.That(ExecOptionsReader.Drivers(Parse("exec", "--port", "1:1")), Does.Contain(GuestDriver.VirtioNet));
    }

    [TestCase("--port: 'udp:127.0.0.1:1:2' needs --net user,host=on", "--port", "udp:1:2")]
    [TestCase("--port: cannot stand beside port= of --net: write all of them in one place", "--net", "user,port=1:1", "--port", "2:2")]
    [TestCase("--port: '1' is not HOST:GUEST", "--port", "1")]
    [TestCase("--net: ip='10.0.0.1/8' is not possible beside user", "--net", "user,ip=10.0.0.1/8")]
    public void Network_Nonsense_IsRefused(string problem, params string[] args) =>
        Assert.That(() => ExecNetwork.Devices(Parse(["exec", .. args])), Throws.TypeOf<UsageException>().With.Message.StartsWith(problem));

    [TestCase("--cpus: '0' is not", "--cpus", "0")]
    [TestCase("--memory: '10M' is", "--memory", "10M")]
    [TestCase("--name: 'a/b' is no name", "--name", "a/b")]
    [TestCase("--cmdline: character U+00E9 after 'x'", "--cmdline", "x\u00e9")]
    [TestCase("--overlay: 'garbage' is not", "--overlay", "garbage")]
    [TestCase("--overlay: '99T' is more than the memory of the guest, 512M: give it more by --memory", "--overlay", "99T")]
    [TestCase("--overlay: 'size=2G' is more than the memory of the guest, 1024M: give it more by --memory", "--overlay", "size=2G", "--memory", "1G")]
    [TestCase("--net: user is given more than once: the guest would have the same address twice", "--net", "user", "--net", "user,host=on")]
    [TestCase("--bind: '/usr:/mnt/' is for /mnt in the guest, and so is /var (--bind): write DIR:GUESTDIR with another GUESTDIR", "--bind", "/var:/mnt", "--bind", "/usr:/mnt/")]
    [TestCase("--bind-ro: '/var:/mnt' is for /mnt in the guest, and so is /var (--bind): write DIR:GUESTDIR with another GUESTDIR", "--bind", "/var:/mnt", "--bind-ro", "/var:/mnt")]
    [TestCase("--rng: 'x' is not", "--rng", "x")]
    public void Check_WrongValue_IsRefusedBeforeAnythingIsLookedFor(string problem, params string[] args) =>
        Assert.That(() => ExecOptionsReader.Check(Parse(["exec", .. args])), Throws.TypeOf<UsageException>().With.Message.StartsWith(problem));

    [TestCase("--bind", "/var", "--bind", "/var/", "--overlay", "512M")]
    [TestCase("--name", "abc", "--cpus", "2", "--net", "user", "--net", "tap")]
    public void Check_WhatIsRight_IsTaken(params string[] args) => Assert.That(() => ExecOptionsReader.Check(Parse(["exec", .. args])), Throws.Nothing);

    [Test]
    public void ToRun_BindGivenTwiceInTheSameWords_IsOne() =>
        Assert.That(RepeatableOptions.Values(ExecOptionsReader.ToRun(Parse("exec", "--rw", "--root", "/usr", "--bind", "/var", "--bind", "/var"), "k", "i", "s").Fs), Has.Length.EqualTo(2));

    [Test]
    public void ToRun_RootAndBinds_AreSharesOfTheirOwn()
    {
        RunOptions run = ExecOptionsReader.ToRun(Parse("exec", "--root", "/usr", "--bind", "/var", "--bind-ro", "/etc:/mnt", "--fs", "tag=more,source=/srv"), "k", "i", "s");

        Assert.That(RepeatableOptions.Values(run.Fs), Is.EqualTo(new[]
        {
            "tag=root,source=/usr,readonly=on,submounts=off", "tag=bind0,source=/var,privileged=off", "tag=bind1,source=/etc,readonly=on", "tag=more,source=/srv,privileged=off",
        }));
        Assert.That((run.OnReboot, run.OnPanic, run.CommandLine), Is.EqualTo(("exit", "exit", "console=ttyS0 quiet")));
    }

    // A back-end that its guest has taken over could connect to every socket of the user's.
    [Test]
    public void ToRun_Vsock_ConnectsToNobody() =>
        Assert.That(ExecOptionsReader.ToRun(Parse("exec", "--root", "/usr"), "k", "i", "/s").Vsock, Is.EqualTo("cid=3,socket=/s,guest_connections=accept"));

    [Test]
    public void ToRun_WithoutVsock_HasAConsoleInItsPlace()
    {
        ExecOptions options = Parse("exec", "--root", "/usr");
        var description = new GuestDescription();
        ExecOptionsReader.Describe(options, description, usesConsole: true);
        RunOptions run = ExecOptionsReader.ToRun(options, "k", "i", vsock: null);

        Assert.That((run.Vsock, run.Console), Is.EqualTo(((string?)null, "pty,keep=8M")));
        Assert.That(description.Lines, Does.Contain("console hvc0"));
        Assert.That(ExecOptionsReader.Drivers(options, usesConsole: true), Does.Contain(GuestDriver.VirtioConsole).And.Not.Contain(GuestDriver.Vsock));
    }

    [Test]
    public void ToRun_ReadWrite_SharesTheRootForWriting() =>
        Assert.That(ExecOptionsReader.ToRun(Parse("exec", "--rw", "--root", "/usr"), "k", "i", "s").Fs, Is.EqualTo("tag=root,source=/usr,privileged=off,submounts=off"));

    [Test]
    public void ToRun_AllowSetuid_SharesAsRunDoes() => Assert.That(
        RepeatableOptions.Values(ExecOptionsReader.ToRun(Parse("exec", "--rw", "--root", "/usr", "--bind", "/var", "--allow-setuid"), "k", "i", "s").Fs),
        Is.EqualTo(new[] { "tag=root,source=/usr,submounts=off", "tag=bind0,source=/var" }));

    [TestCase("tag=a,source=/srv", "tag=a,source=/srv,privileged=off")]
    [TestCase("tag=a,source=\"/s,v\",readonly=off", "tag=a,source=\"/s,v\",readonly=off,privileged=off")]
    [TestCase("tag=a,source=/srv,readonly=on,dax=on", "tag=a,source=/srv,readonly=on,dax=on")]
    [TestCase("tag=a,source=/srv,privileged=on,dax=on", "tag=a,source=/srv,privileged=on,dax=on")]
    [TestCase("tag=a,source=/srv,daemon=/bin/d", "tag=a,source=/srv,daemon=/bin/d")]
    [TestCase("tag=a,socket=/s", "tag=a,socket=/s")]
    [TestCase("tag=a,source=/srv,dax=on", "tag=a,source=/srv,dax=on", "--allow-setuid")]
    public void ToRun_SharedDirectory_GivesNoRightsOnThisHostUnlessTheCommandLineSaysSo(string given, string expected, params string[] args) =>
        Assert.That(RepeatableOptions.Values(ExecOptionsReader.ToRun(Parse(["exec", "--fs", given, .. args]), "k", "i", "s").Fs)[^1], Is.EqualTo(expected));

    [Test]
    public void ToRun_DaxWithoutAWord_IsRefused() => Assert.That(() => ExecOptionsReader.ToRun(Parse("exec", "--fs", "tag=a,source=/srv,dax=on"), "k", "i", "s"),
        Throws.TypeOf<UsageException>().With.Message.StartsWith("--fs: dax='on' needs privileged=on or --allow-setuid"));

    [Test]
    public void ToRun_RootThatIsNotThere_IsRefused() =>
        Assert.That(() => ExecOptionsReader.ToRun(Parse("exec", "--root", "/no/such"), "k", "i", "s"), Throws.TypeOf<UsageException>().With.Message.StartsWith("--root: '/no/such' "));

    [Test]
    public void Describe_Guest_IsInTheRightOrder()
    {
        var description = new GuestDescription();
        ExecOptionsReader.Describe(Parse("exec", "--bind", "/var", "--bind-ro", "/etc:/mnt", "--overlay", "size=1G", "--name", "abc"), description);

        Assert.That(description.Lines.Skip(1), Is.EqualTo(new[] { "root root 1", "overlay 1073741824", "name abc", "enter", "bind bind0 /var 0", "bind bind1 /mnt 1" }));
    }

    [Test]
    public void Net_WithAnAddress_IsADeviceAndAnInterface()
    {
        ExecOptions options = Parse("exec", "--net", "tap=a,ip=10.0.0.2/24,mtu=1400,gateway=10.0.0.1", "--net", "tap=b", "--net", "tap=c,ip=10.1.0.2/16");
        var description = new GuestDescription();
        ExecOptionsReader.Describe(options, description);

        Assert.That(RepeatableOptions.Values(ExecOptionsReader.ToRun(options, "k", "i", "s").Net), Is.EqualTo(new[] { "tap=a,mtu=1400", "tap=b", "tap=c" }));
        Assert.That(description.Lines.Where(line => line.StartsWith("address", StringComparison.Ordinal)),
            Is.EqualTo(new[] { "address eth0 10.0.0.2/24 10.0.0.1", "address eth2 10.1.0.2/16 " }));
    }

    [TestCase("user")]
    [TestCase("user,port=8080:80")]
    public void Net_OfTheUser_HasTheAddressesOfThatNetwork(string value)
    {
        var description = new GuestDescription();
        ExecOptionsReader.Describe(Parse("exec", "--net", value), description);

        Assert.That(description.Lines.TakeLast(2), Is.EqualTo(new[] { "address eth0 10.0.2.15/24 10.0.2.2", "resolver 10.0.2.3" }));
    }

    [TestCase("tap=a,ip=10.0.0.2")]
    [TestCase("tap=a,ip=10.0.0/24")]
    [TestCase("tap=a,ip=10.0.0.2/33")]
    [TestCase("tap=a,ip=::1/64")]
    [TestCase("tap=a,gateway=10.0.0.1")]
    [TestCase("tap=a,ip=10.0.0.2/24,gateway=here")]
    public void Net_WithAWrongAddress_IsRefused(string value) =>
        Assert.That(() => GuestNetwork.Parse(value), Throws.TypeOf<UsageException>().With.Message.StartsWith("--net: "));

    [TestCase("/no/such", "names no directory")]
    [TestCase("/etc:mnt", "no absolute path")]
    [TestCase("/etc:/", "would be the guest's /")]
    [TestCase("/etc://", "would be the guest's /")]
    [TestCase("/etc:/../.", "would be the guest's /")]
    [TestCase("/", "would be the guest's /")]
    [TestCase("/etc:/proc", "has in /proc")]
    [TestCase("/etc:/mnt/..//sys/", "has in /sys")]
    [TestCase("/etc:/dev/shm", "has in /dev")]
    [TestCase("/dev", "has in /dev")]
    public void Bind_WrongValue_IsRefused(string value, string why) =>
        Assert.That(() => BindOption.Parse("--bind", value), Throws.TypeOf<UsageException>().With.Message.StartsWith($"--bind: '{value}' ").And.Message.Contains(why));

    [TestCase("/etc:/mnt/./a//b/../", "/mnt/a")]
    [TestCase("/etc:/devices", "/devices")]
    [TestCase("/etc/", "/etc")]
    public void Bind_Target_IsWithoutNeedlessParts(string value, string target) => Assert.That(BindOption.Parse("--bind", value).Target, Is.EqualTo(target));

    // A path need not be UTF-8: 0xFF and 0xFE are none.
    [Test]
    public void Paths_OfBytesThatAreNotUtf8_AreFound()
    {
        string place = Directory.CreateTempSubdirectory("vmm-test-").FullName, named = $"{place}/\uDCFF\uDCFE";
        HostCommand.Run("sh", "-c", $"mkdir \"$(printf '{place}/\\377\\376')\"");
        try
        {
            Assert.That(BindOption.Parse("--bind", named), Is.EqualTo((named, named)));
            Assert.That(BindOption.Parse("--bind-ro", $"{named}:/mnt"), Is.EqualTo((named, "/mnt")));
            Assert.That(RepeatableOptions.Values(ExecOptionsReader.ToRun(Parse("exec", "--root", named), "k", "i", "s").Fs), Has.Some.Contains($"source={named},"));
            Assert.That(ExecOptionsReader.Shares(Parse("exec", "--fs", $"tag=a,source={named}")).Writable, Is.EqualTo(new[] { ("--fs", named) }));
        }
        finally
        {
            HostCommand.Run("rm", "-r", place);     // the runtime cannot
        }
    }

    [Test]
    public void Bind_InsideOfAnother_ComesAfterIt()
    {
        var description = new GuestDescription();
        ExecOptionsReader.Describe(Parse("exec", "--bind", "/var:/a/b/c", "--bind", "/var:/a/x", "--bind-ro", "/etc:/a", "--bind-ro", "/usr:/a/b"), description);

        Assert.That(description.Lines.Where(line => line.StartsWith("bind", StringComparison.Ordinal)),
            Is.EqualTo(new[] { "bind bind2 /a 1", "bind bind1 /a/x 0", "bind bind3 /a/b 1", "bind bind0 /a/b/c 0" }));
    }

    [TestCase("--bind-ro", "--bind", "@D", "--bind-ro", "@D/secret:/mnt")]
    [TestCase("--bind-ro", "--bind", "@L", "--bind-ro", "@D/secret")]             // a link to D
    [TestCase("--bind-ro", "--bind", "@D", "--bind-ro", "@L/secret:/mnt")]
    [TestCase("--bind-ro", "--bind", "@D", "--bind-ro", "@D:/mnt")]
    [TestCase("--bind-ro", "--root", "@D", "--rw", "--bind-ro", "@D/secret")]
    [TestCase("--bind-ro", "--fs", "tag=t,source=@D", "--bind-ro", "@D/secret")]
    [TestCase("--fs", "--bind", "@D", "--fs", "tag=t,source=@D/secret,readonly=on")]
    [TestCase(null, "--bind-ro", "@D", "--bind", "@D/secret")]
    [TestCase(null, "--bind", "@D/secret", "--bind-ro", "@D/secrets")]
    [TestCase(null, "--root", "@D", "--bind-ro", "@D/secret")]
    public void ToRun_ReadOnlyDirectoryInAWritableOne_IsRefused(string? option, params string[] args)
    {
        string directory = Directory.CreateTempSubdirectory("vmm-test-").FullName, link = directory + "-link";
        Directory.CreateDirectory(Path.Combine(directory, "secret"));
        Directory.CreateDirectory(Path.Combine(directory, "secrets"));
        Directory.CreateSymbolicLink(link, directory);
        string[] real = Array.ConvertAll(args, arg => arg.Replace("@D", directory, StringComparison.Ordinal).Replace("@L", link, StringComparison.Ordinal));
        try
        {
            IResolveConstraint expected = option is null
                ? Throws.Nothing
                : Throws.TypeOf<UsageException>().With.Message.StartsWith($"{option}: '").And.Message.Contains($" is a part of {directory}, ");
            Assert.That(() => ExecOptionsReader.ToRun(Parse(["exec", .. real]), "k", "i", "s"), expected);
        }
        finally
        {
            File.Delete(link);
            Directory.Delete(directory, recursive: true);
        }
    }

    [Test]
    public void Report_Results_AreXmlOfAnyOutput()
    {
        string text = JUnitReport.Text([("a<b>", 3, TimeSpan.FromSeconds(1.5), "x\x1b[1m & \ud800 \U0001F600 y\n"), ("c", 0, TimeSpan.FromSeconds(1), "")], ["late"]);
        var document = new System.Xml.XmlDocument();
        document.LoadXml(text);

        Assert.That(document.SelectSingleNode("/testsuite/@failures")!.Value, Is.EqualTo("1"));
        Assert.That(document.SelectSingleNode("/testsuite/testcase[@name='a<b>']/failure/@message")!.Value, Is.EqualTo("status 3"));
        Assert.That(document.SelectSingleNode("/testsuite/testcase[1]/system-out")!.InnerText, Is.EqualTo("x?[1m & \ufffd \U0001F600 y\n"));
        Assert.That(document.SelectSingleNode("/testsuite/@tests")!.Value, Is.EqualTo("3"));
        Assert.That(document.SelectSingleNode("/testsuite/testcase[@name='late']/skipped"), Is.Not.Null);
    }

    [TestCase(0, ExpectedResult = true)]            // the first one starts, whatever there is
    [TestCase(8, 3, ExpectedResult = true)]
    [TestCase(8, 3, 3, ExpectedResult = false)]     // though nobody has touched the memory of the others yet
    [TestCase(100, 1, 1, 1, 1, ExpectedResult = false)]     // a processor each
    public bool HasRoom_OneMoreOfThreeGigabytes_IfMemoryAndProcessorsAreLeft(int available, params int[] running) =>
        MatrixCommand.HasRoom(3UL << 30, [.. running.Select(gigabytes => (ulong)gigabytes << 30)], ((ulong)available << 30), processors: 4);

    private static ExecOptions Parse(params string[] args) => (ExecOptions)Verbs.Parse(args);

    private static GuestCommand Command((bool, bool, bool) isTerminal, params string[] args) => ExecOptionsReader.ReadCommand(Parse(args), isTerminal);
}
