using System.Text;
using NUnit.Framework;
using Tmds.Linux;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

public sealed class ChildProcessTests
{
    private static ChildProcess Shell(string script, FileDescriptor inherited) => ChildProcess.Start("/bin/sh", ["-c", script, "sh", "an argument"], inherited);

    private static string ReadAll(ChildProcess child)
    {
        var text = new StringBuilder();
        byte[] buffer = new byte[100];
        int count = -Errnos.Eagain;
        while (count != 0)
        {
            Poll.Wait([new PollEntry(child.Output, PollEvents.Readable)], -1);
            count = child.Output.TryRead(buffer);
            text.Append(Encoding.UTF8.GetString(buffer, 0, Math.Max(count, 0)));
        }
        return text.ToString();
    }

    [TestCase(false)]
    [TestCase(true)]
    public void Start_OwnProgram_HasOnlyWhatItNeedsOfTheEnvironment(bool isOwn)
    {
        const string name = "TOKEN_OF_THE_TESTS";
        Environment.SetEnvironmentVariable(name, "token");
        try
        {
            using var nothing = new EventFd();
            using ChildProcess child = ChildProcess.Start("/usr/bin/env", [], nothing, isOwn);
            string[] variables = [.. ReadAll(child).Split('\n').Select(line => line.Split('=')[0])];
            Assert.That(variables, Has.Member("PATH"));
            Assert.That(variables.Contains(name), Is.EqualTo(!isOwn));
        }
        finally
        {
            Environment.SetEnvironmentVariable(name, null);
        }
    }

    [Test]
    public void Start_Program_HasItsArgumentsOutputAndDescriptor()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.Pair();
        using (ours)
        using (theirs)
        {
            using ChildProcess child = Shell("read -r line; echo \"$1, $line.\"; echo error >&2; read -r line <&3; echo \"$line\"; exit 3", theirs);
            Assert.That(child.End, Is.Null);
            Assert.That(ours.TrySend("passed\n"u8, []), Is.EqualTo(7));
            Assert.That(ReadAll(child), Is.EqualTo("an argument, .\nerror\npassed\n"), "its input is empty");
            Assert.That(child.WaitForEnd(30_000));
            Assert.That(child.End, Is.EqualTo("status 3"));
        }
    }

    // As with `vmm run --vhost-user …,fd=1`: the child's own output must not take its place first.
    [TestCase(1)]
    [TestCase(2)]
    public void Start_DescriptorWithALowNumber_IsTheChilds(int number)
    {
        using var inherited = new FileDescriptor(number, ownsHandle: false);
        using ChildProcess child = Shell("readlink /proc/$$/fd/1; readlink /proc/$$/fd/3", inherited);
        string[] lines = ReadAll(child).Split('\n');
        Assert.That(lines[1], Is.EqualTo(new FileInfo($"/proc/self/fd/{number}").LinkTarget));
        Assert.That(lines[0], Does.StartWith("pipe:").And.Not.EqualTo(lines[1]));
    }

    [Test]
    public void Start_Program_HasNothingElseOfOurs()
    {
        using var file = new EventFd();
        using var other = new EventFd();
        using ChildProcess child = Shell(
            "ls -l /proc/$$/fd | grep -c eventfd; grep -E '^Sig(Blk|Ign)' /proc/self/status | tr -s '\\t\\n' ' '; cut -d ' ' -f 5 /proc/$$/stat; echo $$", file);
        string[] lines = ReadAll(child).Split('\n');
        Assert.That(lines[0], Is.EqualTo("1"), "eventfds");
        Assert.That(lines[1], Does.StartWith("SigBlk: 0000000000000000"));
        Assert.That(lines[^2], Is.EqualTo(lines[^3].Split(' ')[^1]), "its process group is its own");
    }

    // As after `exec 9< file; vmm run …`.
    [Test]
    public void Start_DescriptorsThatWeWereStartedWith_AreNotTheChilds()
    {
        string path = Path.GetTempFileName();
        try
        {
            using var inherited = new EventFd();
            using FileDescriptor file = FileDescriptor.Open(path, OpenMode.ReadOnly);
            using var copy = new FileDescriptor(LibC.dup(file.Number));         // which is not close-on-exec
            using var far = new FileDescriptor(LibC.dup2(file.Number, 900));
            using ChildProcess child = ChildProcess.Start("/bin/ls", ["-l", "/proc/self/fd"], inherited);
            string[] lines = ReadAll(child).Split('\n', StringSplitOptions.RemoveEmptyEntries);
            Assert.That(lines[1..].Select(line => line.Split(" -> ")[0].Split(' ')[^1]), Is.EqualTo((string[])["0", "1", "2", "3", "4"]), string.Join('\n', lines));
            Assert.That(lines[^1], Does.EndWith("/fd"), "the last is the directory that it lists");
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Test]
    public void Start_NoSuchProgram_SaysSoAndLeavesNothingOpen()
    {
        const int times = 100;
        using var file = new EventFd();
        int before = Directory.GetFileSystemEntries("/proc/self/fd").Length;
        for (int i = 0; i < times; i++)
        {
            Assert.That(() => ChildProcess.Start("/nonexistent", [], file),
                Throws.TypeOf<ErrnoException>().With.Message.EqualTo("cannot start /nonexistent: No such file or directory (errno 2)"));
        }
        Assert.That(Directory.GetFileSystemEntries("/proc/self/fd").Length, Is.LessThan(before + times));   // others open some, too
    }

    [Test]
    public void Dispose_Running_KillsIt()
    {
        using var file = new EventFd();
        ChildProcess child = Shell("echo $$; exec sleep 1000", file);
        byte[] buffer = new byte[100];
        Poll.Wait([new PollEntry(child.Output, PollEvents.Readable)], -1);
        int id = int.Parse(Encoding.UTF8.GetString(buffer, 0, child.Output.TryRead(buffer)), null);
        Assert.That(child.WaitForEnd(10), Is.False);
        child.Dispose();
        Assert.That(child.End, Is.EqualTo("signal 9"));
        Assert.That(Directory.Exists($"/proc/{id}"), Is.False, "not even a zombie");
    }
}
