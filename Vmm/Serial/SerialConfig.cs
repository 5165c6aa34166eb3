using Vmm.Vhost.Native;

namespace Vmm.Serial;

/// <summary>What the guest's serial port is connected to.</summary>
internal enum SerialKind
{
    /// <summary>Standard input and output.</summary>
    Tty,

    /// <summary>Nothing: output is dropped, there is no input.</summary>
    Null,

    /// <summary>There is no serial port.</summary>
    Off,

    /// <summary>A file that takes the output.</summary>
    File,

    /// <summary>A descriptor that takes the output, such as a pipe's.</summary>
    Descriptor,

    /// <summary>A Unix socket that the VMM listens on.</summary>
    Socket,
}

/// <summary>The option <c>--serial</c>. <paramref name="Descriptor"/> belongs to <see cref="SerialKind.Descriptor"/>, and is closed with the
/// machine. <paramref name="Path"/> belongs to <see cref="SerialKind.File"/> and
/// <see cref="SerialKind.Socket"/>. With <paramref name="Truncate"/> a file that is there is emptied; without, the output is added at its end.</summary>
internal sealed record SerialConfig(SerialKind Kind, string? Path = null, bool Truncate = false, FileDescriptor? Descriptor = null);
