using Vmm.Devices.Backends;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;
using Vmm.Vhost.User;
using Vmm.Vhost.User.Backend;

namespace Vmm.Cli.Backend;

/// <summary><c>vmm backend</c>: serves one device until a signal comes, or the last front-end that can come has gone.</summary>
internal static class BackendCommand
{
    /// <summary>See <see cref="ServedDevice.Refresh"/>. It is ignored while a device is opened.</summary>
    public const int RefreshNumber = SignalNumber.User1;

    /// <summary>Serves the device that <paramref name="options"/> describe.</summary>
    /// <returns>The exit status; see <see cref="ExitCode"/>.</returns>
    /// <exception cref="UsageException">An option's value is wrong.</exception>
    /// <exception cref="Vhost.VhostException">The device cannot be had.</exception>
    /// <exception cref="Vhost.Native.ErrnoException">The device, or the socket, cannot be had.</exception>
    public static int Run(BackendOptions options, TextWriter output)
    {
        Logging.Start(LogLevelOption.Parse(options.LogLevel), options.OpenLog());
        VhostUserEndpoint endpoint = ReadEndpoint(options);
        bool isConfined = options.ReadSandbox(), losesCalls = options.ReadSystemCalls();
        uint? group = options.ReadSocketGroup();
        Func<ServedDevice> open = options.Read();

        // SIGUSR1 is ignored until the device is open: by default it would end the process.
        SignalDisposition.Ignore(RefreshNumber);
        ServedDevice served = open();
        using var device = (IDisposable)served.Device;
        using VhostUserServer server = Serve(endpoint, served.Device, options.Once, group);
        served.Prepare?.Invoke();
        // Before the thread for signals starts, which inherits this.
        Confinement confinement = endpoint.Role == VhostUserSocketRole.Client
            ? served.Confinement with { SocketDirectories = [.. served.Confinement.SocketDirectories, DirectoryOf(endpoint.Path!)] }
            : served.Confinement;
        if (endpoint.Number != 0)   // that the socket came by
            DropInput();
        isConfined = isConfined && GiveUpPrivileges(confinement);

        SignalDisposition.Restore(RefreshNumber);   // the runtime handles no signal that is ignored
        using var signals = new StopSignals();
        signals.Handle(RefreshNumber, () => served.Refresh?.Invoke());  // it does not end a device that has nothing to look at
        signals.Attach(_ => server.Stop());
        if (served.Message is string message)
            output.WriteLine(message);
        if (isConfined && losesCalls)
            confinement.GiveUpSystemCalls();
        server.Run();
        signals.Attach(_ => { });   // there is nothing left to stop
        return signals.First == 0 ? ExitCode.Success : ExitCode.Signal(signals.First);
    }

    // Whoever may connect has the device: a disk, a directory. That is the socket's owner, whatever the umask says, and the group that is named.
    private static VhostUserServer Serve(VhostUserEndpoint endpoint, VhostUserDevice device, bool once, uint? group)
    {
        const uint ownerOnly = 0x3F;    // 077
        uint mask = FileTree.SetMask(ownerOnly);
        try
        {
            var server = new VhostUserServer(endpoint, device, new VhostUserServerOptions { ServesOnce = once });
            if (group is uint number)
                Share(server, endpoint.Path!, number);
            return server;
        }
        catch (ErrnoException e)
        {
            throw new VmmException($"{(endpoint.Path is null ? "--fd" : "--socket-path")}: {e.Message}", e);
        }
        finally
        {
            FileTree.SetMask(mask);
        }
    }

    private static void Share(VhostUserServer server, string path, uint group)
    {
        VhostUserServer? unshared = server;
        try
        {
            SocketFile.ShareWith(path, group);
            unshared = null;
        }
        catch (ErrnoException e)
        {
            throw new VmmException($"--socket-group: {e.Message}: be root, or a member of that group", e);
        }
        catch (IOException e)
        {
            throw new VmmException($"--socket-group: {e.Message}", e);
        }
        finally
        {
            unshared?.Dispose();
        }
    }

    private static bool GiveUpPrivileges(Confinement confinement)
    {
        try
        {
            return confinement.GiveUpPrivileges();
        }
        catch (VhostException e)
        {
            throw new VmmException($"{e.Message} (--sandbox off)", e);
        }
    }

    // What is typed, or comes by a pipe, is not this program's to read.
    private static void DropInput()
    {
        using FileDescriptor nothing = FileDescriptor.Open("/dev/null", OpenMode.ReadOnly);
        StandardStream.Replace(0, nothing);
    }

    // Where a link at that place leads to, too: Landlock asks where the socket is.
    private static string DirectoryOf(string path)
    {
        path = RealPath.Absolute(path);
        return Path.GetDirectoryName(RealPath.TryResolve(path) ?? path)!;
    }

    private static VhostUserEndpoint ReadEndpoint(BackendOptions options)
    {
        if (options.Fd is string fd)
        {
            if (options.SocketPath is not null)
                throw new UsageException("--fd: cannot stand beside --socket-path: the socket is inherited, or it has a path");
            if (options.Client)
                throw new UsageException("--client: cannot stand beside --fd: an inherited socket is connected already, or it listens");
            return VhostUserEndpoint.Inherit((int)NumberValue.Parse(new OptionValue("--fd", null, fd), 0, int.MaxValue));
        }
        string path = options.SocketPath switch
        {
            null => throw new UsageException("--socket-path is missing: give a path, or an inherited socket by --fd"),
            "" => throw new OptionValue("--socket-path", null, "").Refuse("is not a path"),
            _ => options.SocketPath,
        };
        if (ByteText.Encode(path).Length > UnixSocket.MaxPathBytes)
            throw new OptionValue("--socket-path", null, path).Refuse($"is too long: the path of a socket has at most {UnixSocket.MaxPathBytes} bytes");
        // A device may change the current directory, and a socket is connected to again later.
        string full = RealPath.Absolute(path);
        if (ByteText.Encode(full).Length <= UnixSocket.MaxPathBytes)
            path = full;
        return options.Client ? VhostUserEndpoint.ConnectTo(path) : VhostUserEndpoint.ListenOn(path);
    }
}
