using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>How a file that the guest knows is opened: by its name, or by an opening of the guest's.</content>
internal sealed partial class InodeTable
{
    private const int MaxPath = 4096;       // PATH_MAX: bytes of a path that is opened at once, with its null byte
    private const int MaxName = 256;        // bytes of a name, with its null byte
    private const int MaxDepth = 10_000;    // of a directory

    /// <summary>The directory /proc/self/fd.</summary>
    public FileDescriptor? Links { get; init; }

    /// <summary>A descriptor of a file, open by O_PATH until the result is disposed.</summary>
    /// <param name="inode">The file.</param>
    /// <param name="error">0, or a negated error number: the result then holds nothing. EACCES where the file is the kernel's own (<see cref="FileTree.IsOfKernel"/>) and the
    /// shared directory is not: what a guest could do by /proc or /sys, to this process first of all, is not what a directory is shared for.</param>
    public HeldDescriptor Hold(Inode inode, out int error)
    {
        HeldDescriptor held = HoldForStatus(inode, out error);
        if (error < 0 || inode.IsOfStorage || inode.Identity.Device == Root.Identity.Device)
            return held;
        if (FileTree.IsOfKernel(in held))
        {
            held.Dispose();
            error = -Errnos.Eacces;
            return default;
        }
        inode.IsOfStorage = true;
        return held;
    }

    /// <summary>The same, for no more than to ask what a file is: the guest mounts its own /proc on that of the host's.</summary>
    /// <param name="inode">The file.</param>
    /// <param name="error">0, or a negated error number: the result then holds nothing.</param>
    public HeldDescriptor HoldForStatus(Inode inode, out int error)
    {
        error = 0;
        lock (_lock)
        {
            if (inode.Path is { } path)
            {
                inode.WasUsed = true;
                return path.Hold();
            }
        }
        error = OpenAgain(inode, out FileDescriptor? opened);
        if (error is -Errnos.Emfile or -Errnos.Enfile && Shrink())
            error = OpenAgain(inode, out opened);
        if (error < 0)
            return default;
        lock (_lock)
        {
            if (inode.Path is { } other)
            {
                opened!.Dispose();
                return other.Hold();
            }
            HeldDescriptor held = opened!.Hold();
            // One that the guest has forgotten, and that is only on the way to another, is closed at once.
            if (_byId.GetValueOrDefault(inode.Id) == inode)
                _open.Add(inode, opened);
            else
                opened.Dispose();
            return held;
        }
    }

    /// <summary>The guest is about to take a name away: a file that it knows by that name stays open, because the name does not lead to it afterwards. If the name stays after
    /// all, <see cref="Named"/> has to be called.</summary>
    /// <param name="directory">The directory, open.</param>
    /// <param name="name">The name.</param>
    /// <returns>0, or a negated error number: the file would be lost, so its name has to stay.</returns>
    public int Pin(in HeldDescriptor directory, ReadOnlySpan<byte> name)
    {
        int number = FileTree.Open(in directory, name, FileTree.PathOnly);
        if (number is -Errnos.Emfile or -Errnos.Enfile && Shrink())
            number = FileTree.Open(in directory, name, FileTree.PathOnly);
        if (number < 0)
            return number == -Errnos.Enoent ? 0 : number;   // there is nothing to lose
        var path = new FileDescriptor(number);
        FileStatus status;
        int error;
        using (HeldDescriptor held = path.Hold())
            error = FileTree.GetStatus(in held, out status);
        Inode? inode = null;
        lock (_lock)
        {
            bool isKnown = error == 0 && _byIdentity.TryGetValue(InodeIdentity.Of(in status), out inode) && IsSame(inode, in status) && inode.Lookups > 0;
            if (isKnown)
                inode!.IsPinned = true;
            if (isKnown && inode!.Path is null)
                _open.Add(inode, path);
            else
                path.Dispose();
        }
        return error;
    }

    /// <summary>Closes descriptors that are not needed, because there are none to be had any more.</summary>
    /// <returns>Whether there were some.</returns>
    public bool Shrink()
    {
        lock (_lock)
            return _open.Shrink();
    }

    // Outside of the lock: it may take long. By its name first, then by an opening that the guest has.
    private int OpenAgain(Inode inode, out FileDescriptor? path)
    {
        path = null;
        int result = OpenByName(inode, out FileDescriptor? opened);
        if (result < 0)
            return OpenByHandle(inode, out path) == 0 ? 0 : result;
        using (HeldDescriptor held = opened!.Hold())
        {
            bool isSame = FileTree.GetStatus(in held, out FileStatus status) == 0;
            lock (_lock)
                isSame = isSame && IsSame(inode, in status);
            if (isSame)
            {
                path = opened;
                return 0;
            }
        }
        opened.Dispose();
        return OpenByHandle(inode, out path) == 0 ? 0 : -Errnos.Estale;
    }

    private int OpenByHandle(Inode inode, out FileDescriptor? path)
    {
        path = null;
        OpenFile? file;
        lock (_lock)
            file = inode.FirstOpen;
        if (file is null || Links is not { } links)
            return -Errnos.Estale;
        try
        {
            using HeldDescriptor heldLinks = links.Hold(), held = file.Descriptor.Hold();
            int number = FileTree.Reopen(in heldLinks, in held, FileTree.PathOnly);
            if (number < 0)
                return number;
            path = new FileDescriptor(number);
            return 0;
        }
        catch (ObjectDisposedException)
        {
            return -Errnos.Estale;
        }
    }

    // Opens what the names from the root on lead to, in pieces that are paths short enough.
    private int OpenByName(Inode inode, out FileDescriptor? opened)
    {
        opened = null;
        var names = new List<byte[]>();
        lock (_lock)
        {
            for (Inode each = inode; each != Root; each = each.Parent)
            {
                if (each.Parent is null || names.Count > MaxDepth)
                    return -Errnos.Estale;
                names.Add(each.Name);
            }
        }
        FileDescriptor? at = null;
        try
        {
            Span<byte> path = stackalloc byte[MaxPath];
            int length = 0;
            for (int i = names.Count - 1; i >= 0; i--)
            {
                // Each name has a null byte at its end, in whose place comes the slash.
                names[i].CopyTo(path[length..]);
                length += names[i].Length;
                path[length - 1] = i > 0 && length <= MaxPath - MaxName ? (byte)'/' : (byte)0;
                if (path[length - 1] != 0)
                    continue;
                int number;
                using (HeldDescriptor from = (at ?? Root.Path!).Hold())
                    number = FileTree.OpenBeneath(in from, path[..length], FileTree.PathOnly);
                at?.Dispose();
                at = null;
                if (number < 0)
                    return number is -Errnos.Emfile or -Errnos.Enfile or -Errnos.Enomem or -Errnos.Eacces or -Errnos.Eio ? number : -Errnos.Estale;
                at = new FileDescriptor(number);
                length = 0;
            }
            opened = at;
            at = null;
            return opened is null ? -Errnos.Estale : 0;
        }
        finally
        {
            at?.Dispose();
        }
    }
}
