using NUnit.Framework;

namespace Vmm.Tests.Integration.Linux;

/// <content>Whether a command has a terminal.</content>
public partial class ExecTests
{
    // One guest for all of them: a boot takes long.
    [Test]
    public void Exec_ShellAndCommandsBesideIt_HaveATerminalWhereTheyShould()
    {
        string name = $"test-{Guid.NewGuid():N}"[..20];
        using var shell = new VmmOnTerminal([.. s_kernel, "--quiet", "--name", name, "--env", "SHELL=/bin/sh"]);
        shell.Type("test -t 0 && test -t 1 && test -t 2 && echo a shell: $((40 + 2))\r"u8);
        shell.WaitForScreen("a shell: 42\r\n");

        VmmProcess asked = StartHere("exec", "--attach", name, "--tty", "--", "sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo a terminal; read -r line; echo \"got $line\"; exit 4");
        asked.WaitForOutput("a terminal\r\n");
        asked.Send("typed\r"u8);
        VmmResult result = asked.WaitForEnd();
        Assert.That((result.ExitCode, result.Errors), Is.EqualTo((4, "")), result.Summary);
        Assert.That(result.Output, Does.Contain("got typed\r\n"));

        using (var declined = new VmmOnTerminal("exec", "--attach", name, "--no-tty", "--", "sh", "-c", "test -t 0 || test -t 1 || test -t 2 || echo no terminal; exit 5"))
        {
            declined.WaitForScreen("no terminal\r\n");
            declined.WaitForEnd(5);
        }

        VmmProcess loud = StartHere("exec", "--attach", name, "--", "sh", "-c", "yes 0123456789abcde | head -c 3200000 >&2; exit 6");
        loud.EndInput();
        result = loud.WaitForEnd();
        Assert.That((result.ExitCode, result.Output, result.Errors.Length), Is.EqualTo((6, "", 3_200_000)));
        Assert.That(result.Errors == string.Concat(Enumerable.Repeat("0123456789abcde\n", 200_000)), Is.True, "standard error has changed on its way");

        shell.Type("echo b > /proc/sysrq-trigger\r"u8);
        shell.WaitForScreen("vmm: the guest was rebooted before the shell had ended\r\n");
        shell.WaitForEnd(125);
    }
}
