using System.Diagnostics.CodeAnalysis;
using NLog;
using Vmm.Cli;
using Vmm.Cli.Backend;
using Vmm.Cli.Checks;
using Vmm.Cli.Exec;
using Vmm.Sandbox;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm;

/// <summary><c>vmm</c>: verbs, exit statuses, and the one place where every exception ends.</summary>
internal static class Program
{
    // The command line parser sees the options only by reflection: without these lines the native binary has none.
    [DynamicDependency(DynamicallyAccessedMemberTypes.All, typeof(ExecOptions))]
    [DynamicDependency(DynamicallyAccessedMemberTypes.All, typeof(RunOptions))]
    [DynamicDependency(DynamicallyAccessedMemberTypes.All, typeof(CheckOptions))]
    [DynamicDependency(DynamicallyAccessedMemberTypes.All, typeof(BackendIndex))]
    [DynamicDependency(DynamicallyAccessedMemberTypes.All, typeof(BlkBackendOptions))]
    [DynamicDependency(DynamicallyAccessedMemberTypes.All, typeof(NetBackendOptions))]
    [DynamicDependency(DynamicallyAccessedMemberTypes.All, typeof(RngBackendOptions))]
    [DynamicDependency(DynamicallyAccessedMemberTypes.All, typeof(ConsoleBackendOptions))]
    [DynamicDependency(DynamicallyAccessedMemberTypes.All, typeof(VsockBackendOptions))]
    [DynamicDependency(DynamicallyAccessedMemberTypes.All, typeof(FsBackendOptions))]
    internal static int Main(string[] args)
    {
        StandardStream.FillMissing();
        if (args is [MachineSandbox.SpawnerVerb])
            return SpawnerCommand.Run();
        int status = Run(args, StandardWriter.Output(), StandardWriter.Error());
        // A shell, systemd and make tell an interrupted program from a failed one by the signal that it died of.
        if (ExitCode.SignalOf(status) is not int signal)
            return status;
        FatalSignal.Raise(signal);
        return ExitCode.OfKilled(signal);
    }

    /// <summary>Does what <paramref name="args"/> say.</summary>
    /// <returns>The exit status; see <see cref="ExitCode"/>.</returns>
    internal static int Run(string[] args, TextWriter output, TextWriter error)
    {
        try
        {
            return Execute(ProcessText.Arguments(args), output, error);
        }
        catch (Exception e)
        {
            int status = Report(e, error);
            // The other statuses are the command's.
            return args is ["exec", ..] ? ExitCode.ExecFailure : status;
        }
    }

    /// <summary>Tells the user what went wrong, in one line.</summary>
    /// <returns>The exit status.</returns>
    internal static int Report(Exception exception, TextWriter error)
    {
        bool isForeseen = exception is UsageException or VmmException or GuestMemoryException or VhostException or ErrnoException;
        // The runtime says of that only that a file was not found, wherever a path is made absolute.
        string? place = !isForeseen && exception is IOException or UnauthorizedAccessException ? WorkingDirectory.Problem : null;
        isForeseen |= place is not null;
        string message = isForeseen
            ? place ?? exception.Message
            : $"{exception.GetType().Name}: {exception.Message}: this is a bug; run again with --log-level debug for the stack trace";
        try
        {
            error.WriteLine($"vmm: {OneLine.Of(message)}");
            if (exception is VmmException { Details: string details })
                error.WriteLine(details);
            if (!isForeseen && Logging.Level <= LogLevel.Debug)
                error.WriteLine(exception.ToString());
        }
        catch (ErrnoException)
        {
            // Standard error is gone; the exit status still tells.
        }
        return exception is UsageException || place is not null ? ExitCode.Usage : ExitCode.Failure;
    }

    private static int Execute(string[] args, TextWriter output, TextWriter error)
    {
        object request = Verbs.Parse(args);
        if (request is string text)
        {
            bool isAskedFor = !Verbs.LacksVerb(args);
            (isAskedFor ? output : error).Write(text);
            return isAskedFor ? ExitCode.Success : ExitCode.Usage;
        }
        // Each queue of each device takes descriptors, and the usual soft limit is for programs that still use select(2).
        if (request is MachineOptions or BackendOptions)
            ResourceLimit.OpenFiles.Raise();
        return request switch
        {
            ExecOptions options => ExecCommand.Run(options, output),
            RunOptions options => RunCommand.Run(options),
            CheckOptions => CheckCommand.Run(HostView.Real, output),
            BackendOptions options => BackendCommand.Run(options, output),
            _ => throw new InvalidOperationException($"no command for {request.GetType().Name}"),
        };
    }
}
