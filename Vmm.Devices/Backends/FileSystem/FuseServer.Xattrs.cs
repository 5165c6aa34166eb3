using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>Extended attributes.</content>
internal sealed partial class FuseServer
{
    private const uint XattrFlags = 3;      // XATTR_CREATE and XATTR_REPLACE of linux/xattr.h
    private const int HostNameRoom = 512;

    private static ReadOnlySpan<byte> AclPrefix => "system.posix_acl_"u8;

    private static ReadOnlySpan<byte> AccessAcl => "system.posix_acl_access\0"u8;

    private XattrMap Map => Options.XattrMap ?? XattrMap.Default;

    // Takes the next name from the request and makes the host's name of it, with a null byte. isOwners says that only the file's owner and root may change the attribute, and that this
    // side has to check it: for system.* the guest's kernel lets everybody (xattr_permission of Linux's fs/xattr.c). It checks ACLs itself.
    private int TakeXattrName(FuseRequest request, Span<byte> hostName, out bool isOwners)
    {
        isOwners = false;
        if (!Options.Xattr)
            return -Errnos.Enosys;
        if (!request.TryTakeText(out ReadOnlySpan<byte> name) || name.Length == 1)
            return -Errnos.Einval;
        name = name[..^1];
        if (name.Length > ExtendedAttributes.MaxName)
            return -Errnos.Erange;
        // Nobody checks ACLs that the guest's kernel does not know of.
        if (!Has(FuseFlags.PosixAcl) && name.StartsWith(AclPrefix))
            return -Errnos.Eopnotsupp;
        isOwners = name.StartsWith("system."u8) && !name.StartsWith(AclPrefix);
        return Map.ToHost(name, hostName);
    }

    private long GetXattr(FuseRequest request, Inode inode)
    {
        if (!request.TryTake(out FuseXattrSize arguments))
            return -Errnos.Einval;
        Span<byte> name = stackalloc byte[HostNameRoom];
        int error = TakeXattrName(request, name, out _);
        if (error < 0)
            return error == -Errnos.Eperm ? -Errnos.Enodata : error;
        using HeldDescriptor path = _inodes.Hold(inode, out error);
        if (error < 0)
            return error;
        Span<byte> value = arguments.Size == 0 ? default : request.MakeReply((int)Math.Min(Math.Min(arguments.Size, ExtendedAttributes.MaxSize), request.Room));
        int result = ExtendedAttributes.Get(in path, name, value);
        // A file system without ACLs has none on this file. The guest's kernel, which counts on ACLs, would take the error for a refusal of all access.
        if (result == -Errnos.Eopnotsupp && name.StartsWith(AclPrefix))
            return -Errnos.Enodata;
        return result < 0 || arguments.Size != 0 ? result : request.Reply(new FuseXattrSize((uint)result, 0));
    }

    private long SetXattr(FuseRequest request, Inode inode)
    {
        if (!request.TryTake(out FuseSetXattr arguments))
            return -Errnos.Einval;
        var more = default(FuseSetXattrMore);
        if (Has(FuseFlags.SetXattrExtension) && !request.TryTake(out more))
            return -Errnos.Einval;
        Span<byte> name = stackalloc byte[HostNameRoom];
        int error = TakeXattrName(request, name, out bool isOwners);
        if (error < 0)
            return error;
        if (!IsAllowedXattr(name))
            return -Errnos.Eperm;
        if (arguments.Size > ExtendedAttributes.MaxSize)
            return -Errnos.E2big;
        if ((arguments.Flags & ~XattrFlags) != 0 || !request.TryTakeBytes(arguments.Size, out ReadOnlySpan<byte> value))
            return -Errnos.Einval;
        using HeldDescriptor path = _inodes.Hold(inode, out error);
        if (error < 0 || (isOwners && (error = CheckOwner(request, in path)) < 0))
            return error;
        error = ExtendedAttributes.Set(in path, name, value, (int)arguments.Flags);
        return error == 0 && (more.Flags & FuseSetXattrMore.KillsSetGroup) != 0 && name.StartsWith(AccessAcl) ? TakeSetGroupAway(in path) : error;
    }

    private long RemoveXattr(FuseRequest request, Inode inode)
    {
        Span<byte> name = stackalloc byte[HostNameRoom];
        int error = TakeXattrName(request, name, out bool isOwners);
        if (error < 0)
            return error;
        using HeldDescriptor path = _inodes.Hold(inode, out error);
        if (error < 0 || (isOwners && (error = CheckOwner(request, in path)) < 0))
            return error;
        return ExtendedAttributes.Remove(in path, name);
    }

    private long ListXattr(FuseRequest request, Inode inode)
    {
        if (!Options.Xattr)
            return -Errnos.Enosys;
        if (!request.TryTake(out FuseXattrSize arguments))
            return -Errnos.Einval;
        using HeldDescriptor path = _inodes.Hold(inode, out int error);
        if (error < 0)
            return error;
        Span<byte> list = request.MakeReply(ExtendedAttributes.MaxSize);
        int result = ExtendedAttributes.List(in path, list);
        if (result < 0)
            return result;
        // Each name becomes shorter, or stays: so the list can be made in its own place.
        int length = 0;
        for (int start = 0; start < result;)
        {
            int end = start + list[start..result].IndexOf((byte)0);
            if (end < start)
                break;
            ReadOnlySpan<byte> name = Map.ToGuest(list[start..end]);
            start = end + 1;
            // File systems show the names of trusted.* only to processes with CAP_SYS_ADMIN. The guest's kernel does not check that for FUSE, nor does a request tell the caller's capabilities: so root sees them.
            if (name.IsEmpty || (!Has(FuseFlags.PosixAcl) && name.StartsWith(AclPrefix)) || (request.Header.User != 0 && name.StartsWith("trusted."u8)))
                continue;
            int count = name.Length;
            name.CopyTo(list[length..]);
            list[length + count] = 0;
            length += count + 1;
        }
        if (arguments.Size == 0)
            return request.Reply(new FuseXattrSize((uint)length, 0));
        return length <= arguments.Size ? length : -Errnos.Erange;
    }
}
