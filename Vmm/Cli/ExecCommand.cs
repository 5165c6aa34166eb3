using Vmm.Devices.Virtio.VhostUser;
using Vmm.Guest;
using Vmm.Machine;
using Vmm.Serial;
using Vmm.Vhost.Native;

namespace Vmm.Cli;

/// <summary><c>vmm exec</c>: the machine of <c>vmm run</c>, with a kernel that is found, the agent as its init, and a command.</summary>
internal static class ExecCommand
{
    private const string SocketName = "vsock";
    private const uint AgentPort = 1024;

    /// <summary>Runs the command that <paramref name="options"/> describe, in a guest of its own.</summary>
    /// <returns>The exit status; see <see cref="ExitCode"/>.</returns>
    /// <exception cref="UsageException">An option's value is wrong.</exception>
    /// <exception cref="VmmException">There is no kernel, or this host cannot run the guest as asked.</exception>
    public static int Run(ExecOptions options, TextWriter output)
    {
        // What the VMM would warn of, such as a panic, is told here in other words.
        Logging.Start(LogLevelOption.Parse(options.LogLevel ?? "error"));
        FileDescriptor? input = StandardStream.Input, error = StandardStream.Error, written = StandardStream.Output;
        GuestCommand command = ExecOptionsReader.ReadCommand(options, (IsTerminal(input), IsTerminal(written), IsTerminal(error)));
        TimeSpan? timeout = ExecOptionsReader.ReadTimeout(options);
        GuestKernel kernel = KernelSearch.Find(options.Kernel, options.Modules);
        ModulePlan modules = new KernelModules(kernel).Plan(ExecOptionsReader.Drivers(options));
        modules.RequireAll(kernel);
        using var initramfs = new GuestInitramfs(modules.Load, description => ExecOptionsReader.Describe(options, description));
        if (options.DryRun)
        {
            RunOptions shown = ExecOptionsReader.ToRun(options, kernel.ImagePath, "INITRAMFS", SocketName);
            output.Write(ExecDryRun.Text(shown, initramfs, command));
            return ExitCode.Success;
        }
        RunCommand.RequireVirtualisation(options.Force, kernel.ImagePath);
        using var directory = new TemporaryDirectory(SocketDirectory.Create($"{SocketName}_{AgentPort}"));
        string socket = Path.Combine(directory.Path, SocketName);
        MachineConfig config = RunOptionsReader.Read(ExecOptionsReader.ToRun(options, kernel.ImagePath, initramfs.Path, socket));
        using var listener = UnixListener.Listen($"{socket}_{AgentPort}");
        using var log = new KernelLog(OpenDmesg(options.Dmesg));
        var streams = new HostStreams(input, written, error, command.HasTerminal, closesOutput: written is not null);
        using var session = new AgentSession(command, streams, timeout);
        var run = new ExecRun(config with { Serial = new SerialConfig(SerialKind.Descriptor, Descriptor: log.Writing) }, session, listener);
        (MachineEnd? machine, CommandEnd end) = run.Run();
        log.WaitForEnd();
        return new ExecReport(command, options.Quiet, timeout, log).Tell(machine, end);
    }

    private static bool IsTerminal(FileDescriptor? stream) => stream is not null && Terminal.TryOpen(stream) is not null;

    private static FileDescriptor? OpenDmesg(string? path)
    {
        try
        {
            return path switch
            {
                null => null,
                "-" => new FileDescriptor(2, ownsHandle: false),
                _ => FileDescriptor.Open(path, OpenMode.CreateTruncate),
            };
        }
        catch (ErrnoException e)
        {
            throw new VmmException($"--dmesg {path}: {e.Message}", e);
        }
    }
}
