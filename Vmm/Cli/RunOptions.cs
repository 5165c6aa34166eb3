using CommandLine;

namespace Vmm.Cli;

/// <summary>The options of <c>vmm run</c>, as the user wrote them; <see cref="RunOptionsReader"/> makes sense of them.</summary>
[Verb("run", HelpText = "Boot a Linux guest and run it until it powers off.")]
internal sealed class RunOptions : MachineOptions
{
    [Option("kernel", Required = true, MetaValue = "PATH", HelpText = "The kernel: a bzImage or an ELF vmlinux.")]
    public string Kernel { get; set; } = "";

    [Option("initramfs", MetaValue = "PATH", HelpText = "The initial RAM file system.")]
    public string? Initramfs { get; set; }

    [Option("cmdline", MetaValue = "TEXT", HelpText = "The kernel's command line (default: empty).")]
    public string? CommandLine { get; set; }

    [Option("serial", MetaValue = "WHERE", HelpText = "The serial port ttyS0: tty (this terminal), null, off, file=PATH[,truncate=on] or socket=PATH "
        + "(default: tty).")]
    public string? Serial { get; set; }

    [Option(VsockOption.Option, MetaValue = "DEVICE", HelpText = "Sockets between host and guest: cid=N, the guest's address, 3 or more; "
        + "with ,socket=PATH they are Unix sockets on the host; [,guest_connections=connect|accept] says whether the back-end connects to PATH_N, or programs accept at PATH.")]
    public string? Vsock { get; set; }

    [Option(ConsoleOption.Option, MetaValue = "WHERE", HelpText = "A console of its own, hvc0: pty[,keep=SIZE], whose path is told, or file=PATH[,truncate=on].")]
    public string? Console { get; set; }

    [Option("on-reboot", MetaValue = "ACTION", HelpText = "When the guest reboots: restart, or exit with status 0 (default: restart).")]
    public string? OnReboot { get; set; }

    [Option("on-panic", MetaValue = "ACTION", HelpText = "When the guest panics: exit with status 3, or halt (default: exit).")]
    public string? OnPanic { get; set; }

    [Option("shutdown-timeout", MetaValue = "TIME", HelpText = "How long the guest has to power itself off after the first SIGTERM or SIGINT, which "
        + "presses its power button, such as 90s; a second signal switches it off (default: 0, at once).")]
    public string? ShutdownTimeout { get; set; }

    [Option("user", MetaValue = "USER[:GROUP]", HelpText = "Become this user, by name or number, once all is open: for who starts as root.")]
    public string? User { get; set; }

    [Option("chroot", MetaValue = "DIR", HelpText = "Make an empty directory the root of the file system, once all is open: for who starts as root.")]
    public string? Chroot { get; set; }

    /// <inheritdoc/>
    public override bool TrySet(string name, string value)
    {
        switch (name)
        {
            case "kernel":
                Kernel = value;
                break;
            case "initramfs":
                Initramfs = value;
                break;
            case "cmdline":
                CommandLine = value;
                break;
            case "serial":
                Serial = value;
                break;
            case VsockOption.Option:
                Vsock = value;
                break;
            case ConsoleOption.Option:
                Console = value;
                break;
            case "on-reboot":
                OnReboot = value;
                break;
            case "on-panic":
                OnPanic = value;
                break;
            case "shutdown-timeout":
                ShutdownTimeout = value;
                break;
            case "user":
                User = value;
                break;
            case "chroot":
                Chroot = value;
                break;
            default:
                return base.TrySet(name, value);
        }
        return true;
    }
}
