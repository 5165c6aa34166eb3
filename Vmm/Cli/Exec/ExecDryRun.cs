using System.Text;
using Vmm.Guest;

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
        text.AppendLine().AppendLine().AppendLine("In the initramfs:");
        foreach (string file in initramfs.Files)
            text.AppendLine($"  {file}");
        text.AppendLine().AppendLine("What the agent does:");
        foreach (string line in initramfs.Description)
            text.AppendLine($"  {line}");
        text.AppendLine($"  run{string.Concat(command.Arguments.Select(argument => " " + Quoted(argument)))} in {command.Directory}");
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

    // For a shell.
    private static string Quoted(string word) => word.Length > 0 && word.All(character => char.IsAsciiLetterOrDigit(character) || "-_./,:=+@%".Contains(character, StringComparison.Ordinal))
        ? word
        : $"'{word.Replace("'", "'\\''", StringComparison.Ordinal)}'";
}
