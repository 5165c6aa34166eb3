using System.Text;
using Vmm.Guest;
using Vmm.Vhost.Native;

namespace Vmm.Cli.Exec;

/// <summary>What <c>vmm exec --dry-run</c> prints: the same guest as a line of <c>vmm run</c>, and what is in its initramfs.</summary>
internal static class ExecDryRun
{
    /// <summary>The text.</summary>
    public static string Text(RunOptions run, GuestInitramfs initramfs, GuestCommand command)
    {
        var text = new StringBuilder("vmm run");
        Add("kernel", run.Kernel);
        Add("initramfs", run.Initramfs);
        Add("cmdline", run.CommandLine);
        Add("cpus", run.Cpus);
        Add("memory", run.Memory);
        Add("serial", run.Serial);
        AddAll("net", run.Net);
        AddAll("fs", run.Fs);
        AddAll("disk", run.Disk);
        Add("vsock", run.Vsock);
        Add("console", run.Console);
        Add("rng", run.Rng);
        AddAll("scsi", run.Scsi);
        AddAll("vdpa", run.Vdpa);
        AddAll("vhost-user", run.VhostUser);
        Add("virtio-discovery", run.VirtioDiscovery);
        Add("interrupts", run.Interrupts);
        Add("on-reboot", run.OnReboot);
        Add("on-panic", run.OnPanic);
        Add("decompress", run.Decompress);
        Add("kernel-cache", run.KernelCache);
        Add("entry", run.Entry);
        Add("sandbox", run.Sandbox);
        Add("log-level", run.LogLevel);
        if (run.Force)
            text.Append(" --force");
        text.AppendLine().AppendLine().AppendLine("In the initramfs:");
        foreach (string file in initramfs.Files)
            text.AppendLine($"  {OneLine.Of(file)}");
        text.AppendLine().AppendLine("What the agent does:");
        foreach (string line in initramfs.Description)
            text.AppendLine($"  {OneLine.Of(line)}");
        text.AppendLine($"  run{string.Concat(command.Arguments.Select(argument => " " + Quoted(argument)))} in {Quoted(command.Directory)}");
        return text.ToString();

        void Add(string option, string? value)
        {
            if (value is not null)
                text.Append($" --{option} {Quoted(value)}");
        }

        void AddAll(string option, string? joined)
        {
            foreach (string value in RepeatableOptions.Values(joined))
                Add(option, value);
        }
    }

    // For a shell. What a terminal must not get stands there by the numbers of its bytes.
    private static string Quoted(string word)
    {
        if (word.Length > 0 && word.All(character => char.IsAsciiLetterOrDigit(character) || "-_./,:=+@%".Contains(character, StringComparison.Ordinal)))
            return word;
        if (OneLine.Of(word) == word)
            return $"'{word.Replace("'", "'\\''", StringComparison.Ordinal)}'";
        string plain = word.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("'", "\\'", StringComparison.Ordinal);
        return $"$'{OneLine.Replace(plain, part => string.Concat(ByteText.Encode(part).Select(number => $"\\{Convert.ToString(number, 8).PadLeft(3, '0')}")))}'";
    }
}
