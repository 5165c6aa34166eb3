using Vmm.Vhost.Native;

namespace Vmm.Serial;

/// <summary>Makes the host's side of the serial port.</summary>
internal static class SerialBackends
{
    /// <summary>Makes what <paramref name="config"/> asks for. It is disposed at the latest when the process exits in an orderly way, or
    /// by an exception that nobody caught: the terminal is restored and queued output delivered. A signal whose default action ends the
    /// process allows neither: whoever runs the machine handles those signals.</summary>
    /// <param name="config">The option <c>--serial</c>.</param>
    /// <param name="quit">Called when the user leaves by Ctrl-A x, on the input thread: it must only ask for the end, not wait for it.</param>
    /// <returns>Null if there is to be no serial port.</returns>
    /// <exception cref="UsageException">The path cannot be used.</exception>
    /// <exception cref="VmmException">The file or socket could not be made.</exception>
    public static ISerialBackend? Create(SerialConfig config, Action quit)
    {
        ISerialBackend? backend = config.Kind switch
        {
            SerialKind.Tty => new TtySerial(StandardStream.Input, StandardStream.Output, quit),
            SerialKind.Null => new NullSerial(),
            SerialKind.Off => null,
            SerialKind.File => CreateFile(config.Path ?? "", config.Truncate),
            SerialKind.Descriptor => new FileSerial(config.Descriptor!, "the kernel's log", truncate: false),
            SerialKind.Socket => new SocketSerial(config.Path ?? "", $"--serial socket={config.Path}"),
            _ => throw new ArgumentOutOfRangeException(nameof(config)),
        };
        if (backend is not null)
        {
            AppDomain.CurrentDomain.ProcessExit += (_, _) => backend.Dispose();
            AppDomain.CurrentDomain.UnhandledException += (_, _) => backend.Dispose();
        }
        return backend;
    }

    private static FileSerial CreateFile(string path, bool truncate)
    {
        try
        {
            return new FileSerial(FileDescriptor.Open(path, OpenMode.CreateAppend), path, truncate);
        }
        catch (ErrnoException error)
        {
            throw new VmmException($"--serial file={path}: {error.Message}", error);
        }
    }
}
