using Vmm.Vhost.Native.Confinement;
using static Vmm.Vhost.Native.FileSystem.KernelCall;

namespace Vmm.Vhost.Native.FileSystem;

/// <summary>Extended attributes (xattr(7)) of files that may be open by O_PATH. Only for a process whose current directory is /proc/self/fd
/// (<see cref="FileTree.Enter"/>): before Linux 6.13 no call takes such a descriptor. Names end with a null byte. All return a negated error number
/// where the kernel refuses.</summary>
public static unsafe class ExtendedAttributes
{
    /// <summary>The most bytes of a value and of a list (XATTR_SIZE_MAX, XATTR_LIST_MAX), and of a name without its null byte.</summary>
    public const int MaxSize = 65536, MaxName = 255;

    /// <summary>getxattr(2).</summary>
    /// <returns>Bytes of the value; with an empty <paramref name="value"/> so many as it has.</returns>
    public static int Get(in HeldDescriptor file, ReadOnlySpan<byte> name, Span<byte> value)
    {
        Span<byte> path = stackalloc byte[DescriptorName.MaxLength];
        DescriptorName.Write(file.Number, path);
        fixed (byte* pathPointer = path, namePointer = name, valuePointer = value)
            return (int)Do(SystemCallNumber.Getxattr, (nint)pathPointer, (nint)namePointer, (nint)valuePointer, value.Length);
    }

    /// <summary>setxattr(2); <paramref name="flags"/> are XATTR_CREATE (1) or XATTR_REPLACE (2).</summary>
    public static int Set(in HeldDescriptor file, ReadOnlySpan<byte> name, ReadOnlySpan<byte> value, int flags)
    {
        Span<byte> path = stackalloc byte[DescriptorName.MaxLength];
        DescriptorName.Write(file.Number, path);
        fixed (byte* pathPointer = path, namePointer = name, valuePointer = value)
            return (int)Do(SystemCallNumber.Setxattr, (nint)pathPointer, (nint)namePointer, (nint)valuePointer, value.Length, flags);
    }

    /// <summary>listxattr(2).</summary>
    /// <returns>Bytes of the list; with an empty <paramref name="list"/> so many as there are.</returns>
    public static int List(in HeldDescriptor file, Span<byte> list)
    {
        Span<byte> path = stackalloc byte[DescriptorName.MaxLength];
        DescriptorName.Write(file.Number, path);
        fixed (byte* pathPointer = path, listPointer = list)
            return (int)Do(SystemCallNumber.Listxattr, (nint)pathPointer, (nint)listPointer, list.Length);
    }

    /// <summary>removexattr(2).</summary>
    public static int Remove(in HeldDescriptor file, ReadOnlySpan<byte> name)
    {
        Span<byte> path = stackalloc byte[DescriptorName.MaxLength];
        DescriptorName.Write(file.Number, path);
        fixed (byte* pathPointer = path, namePointer = name)
            return (int)Do(SystemCallNumber.Removexattr, (nint)pathPointer, (nint)namePointer);
    }
}
