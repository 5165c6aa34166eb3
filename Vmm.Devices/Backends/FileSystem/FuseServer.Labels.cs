using System.Runtime.InteropServices;
using Vmm.Vhost;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>Labels of new files: security contexts of the guest's SELinux or Smack (FUSE_SECURITY_CTX).</content>
internal sealed partial class FuseServer
{
    // Gives a file that was just made the labels that stand behind its names in the request. The host's kernel knows of no call that makes and labels it at once: for a
    // moment it has none. One that cannot be labelled is removed.
    private int Label(FuseRequest request, in HeldDescriptor directory, ReadOnlySpan<byte> name, bool isDirectory)
    {
        if (!Has(FuseFlags.SecurityContext))
            return 0;
        ReadOnlySpan<byte> contexts = FindContexts(request, out uint count);
        if (count == 0)
            return 0;
        int error = FileTree.Open(in directory, name, FileTree.PathOnly);
        if (error >= 0)
        {
            using var file = new FileDescriptor(error);
            using HeldDescriptor held = file.Hold();
            error = SetContexts(in held, contexts, count);
        }
        if (error < 0)
            _ = FileTree.Remove(in directory, name, isDirectory);
        return error;
    }

    // The same for a file without a name.
    private int LabelOpen(FuseRequest request, in HeldDescriptor file)
    {
        if (!Has(FuseFlags.SecurityContext) || !request.TryTakeText(out _))
            return 0;
        ReadOnlySpan<byte> contexts = FindContexts(request, out uint count);
        return count == 0 ? 0 : SetContexts(in file, contexts, count);
    }

    // struct fuse_secctx of linux/fuse.h, one after another: the size of the value, an unused word, the name with its null byte, the value; filled up to a multiple of 8.
    private int SetContexts(in HeldDescriptor file, ReadOnlySpan<byte> contexts, uint count)
    {
        Span<byte> hostName = stackalloc byte[HostNameRoom];
        for (; count > 0; count--)
        {
            if (contexts.Length < 8)
                return -Errnos.Einval;
            uint size = MemoryMarshal.Read<uint>(contexts);
            ReadOnlySpan<byte> rest = contexts[8..];
            int end = rest.IndexOf((byte)0);
            if (end <= 0 || end > ExtendedAttributes.MaxName || size > rest.Length - end - 1)
                return -Errnos.Einval;
            int error = Map.ToHost(rest[..end], hostName);
            if (error >= 0 && !IsAllowedXattr(hostName))
                error = -Errnos.Eperm;
            if (error < 0 || (size > 0 && (error = ExtendedAttributes.Set(in file, hostName, rest.Slice(end + 1, (int)size), 0)) < 0))
                return error;
            int length = Align.Up(8 + end + 1 + (int)size, 8);
            contexts = contexts[Math.Min(length, contexts.Length)..];
        }
        return 0;
    }

    // From protocol 7.38 on they are an extension whose type is their number; before, they are the rest of the arguments, behind the same header.
    private static ReadOnlySpan<byte> FindContexts(FuseRequest request, out uint count)
    {
        ReadOnlySpan<byte> extensions = request.Extensions.IsEmpty ? request.Rest : request.Extensions;
        while (extensions.Length >= FuseExtension.WireSize)
        {
            var extension = MemoryMarshal.Read<FuseExtension>(extensions);
            if (extension.Size < FuseExtension.WireSize || extension.Size > extensions.Length)
                break;
            if (extension.Type <= FuseExtension.MostContexts)
            {
                count = extension.Type;
                return extensions[FuseExtension.WireSize..(int)extension.Size];
            }
            extensions = extensions[(int)Math.Min(Align.Up((ulong)extension.Size, 8UL), (ulong)extensions.Length)..];
        }
        count = 0;
        return default;
    }
}
