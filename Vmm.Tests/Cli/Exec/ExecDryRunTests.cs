using NUnit.Framework;
using Vmm.Cli;
using Vmm.Cli.Exec;
using Vmm.Guest;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Cli.Exec;

public sealed class ExecDryRunTests
{
    // Sequences that set the clipboard and the title, the other direction of writing, a byte that is no text; and what means something to a shell.
    private static readonly string[] s_words =
        ["plain", "", "it's $HOME `x` \\n", "\x1b]52;c;YQ==\a", "a\nb\tc'\\x1", "\u009b31m", "x\u202egnp", "\U000e0041", ByteText.Decode([0x9B, (byte)'7'])];

    [Test]
    public void Text_AnyWord_IsForAShellWhatItIsAndForATerminalHarmless()
    {
        foreach (string word in s_words)
        {
            string text = Text(new RunOptions { Kernel = "k", CommandLine = word }, word, "/" + word);

            Assert.That(text.Where(character => (char.IsControl(character) && character != '\n') || character is '\u202e' || char.IsSurrogate(character)), Is.Empty, text);
            string line = text.Split('\n')[0], command = Array.Find(text.Split('\n'), each => each.StartsWith("  run ", StringComparison.Ordinal))!;
            Assert.That(Words(line["vmm run".Length..]).Skip(3).Take(1), Is.EqualTo(new[] { Hex(word) }), line);
            Assert.That(Words(command["  run".Length..]), Is.EqualTo(new[] { Hex(word), Hex("in"), Hex("/" + word) }), command);
        }
    }

    [Test]
    public void Text_WhatTheAgentDoes_IsAlwaysALineOfText()
    {
        string text = Text(new RunOptions { Kernel = "k" }, "true", "/", description => description.Bind("bind0", "/a\x1b[2J\nb\u202e", isReadOnly: true));

        Assert.That(text, Does.Contain("  bind bind0 /a\\x1b[2J\\nb\\u202e 1\n"));
    }

    [Test]
    public void Text_ForceAndLogLevel_AreInTheLine() =>
        Assert.That(Text(new RunOptions { Kernel = "k", Force = true, LogLevel = "debug" }, "true", "/").Split('\n')[0], Is.EqualTo("vmm run --kernel k --log-level debug --force"));

    private static string Text(RunOptions run, string argument, string directory, Action<GuestDescription>? describe = null)
    {
        using var initramfs = new GuestInitramfs([], describe ?? (_ => { }));
        return ExecDryRun.Text(run, initramfs, new GuestCommand { Arguments = [argument], Environment = [], Directory = directory, IsDirectoryOptional = false, User = "" });
    }

    // The bytes of each word that a shell makes of a text.
    private static string[] Words(string text) =>
        HostCommand.Run("bash", "-c", $"for word in {text}; do printf %s \"$word\" | od -An -v -tx1 | tr -d ' \\n'; echo; done")[..^1].Split('\n');

    private static string Hex(string word) => Convert.ToHexStringLower(ByteText.Encode(word));
}
