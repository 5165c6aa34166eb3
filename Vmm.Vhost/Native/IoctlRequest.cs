using System.Runtime.CompilerServices;

namespace Vmm.Vhost.Native;

/// <summary>An ioctl request number and its name, so that every failure can say which request it was.
/// The factories encode direction and argument size as asm-generic/ioctl.h does.</summary>
public readonly record struct IoctlRequest(uint Number, string Name)
{
    private const uint Write = 1;
    private const uint Read = 2;

    /// <summary><c>_IO(type, nr)</c>: no argument, or a plain integer.</summary>
    public static IoctlRequest Io(byte type, byte nr, string name) => Encode(0, type, nr, 0, name);

    /// <summary><c>_IOR(type, nr, T)</c>: the kernel fills a <typeparamref name="T"/>.</summary>
    public static IoctlRequest Ior<T>(byte type, byte nr, string name)
        where T : unmanaged => Encode(Read, type, nr, Unsafe.SizeOf<T>(), name);

    /// <summary><c>_IOW(type, nr, T)</c>: the kernel reads a <typeparamref name="T"/>.</summary>
    public static IoctlRequest Iow<T>(byte type, byte nr, string name)
        where T : unmanaged => Encode(Write, type, nr, Unsafe.SizeOf<T>(), name);

    /// <summary><c>_IOWR(type, nr, T)</c>: the kernel reads and then fills a <typeparamref name="T"/>.</summary>
    public static IoctlRequest Iowr<T>(byte type, byte nr, string name)
        where T : unmanaged => Encode(Read | Write, type, nr, Unsafe.SizeOf<T>(), name);

    private static IoctlRequest Encode(uint direction, byte type, byte nr, int size, string name) =>
        new((direction << 30) | ((uint)size << 16) | ((uint)type << 8) | nr, name);
}
