using Vmm.Vhost.Native;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>How a file that the guest knows is opened: by its name, or by an opening of the guest's.</content>
internal sealed partial class InodeTable
{
    /// <summary>Bytes of a name, with its null byte: FUSE_NAME_MAX of Linux, which has no limit of its own. Names of vfat have up to 765.</summary>
    public const int MaxName = 1025;

    private const int MaxPath = 4096;       // PATH_MAX: bytes of a path that is opened at once, with its null byte
    private const int MaxDepth = 10_000;    // of a directory

    /// <summary>The directory /proc/self/fd.</summary>
    public FileDescriptor? Links { get; init; }

    /// <summary>A descriptor of a file, open by O_PATH until the result is disposed.</summary>
    /// <param name="inode">The file.</param>
    /// <param name="error">0, or a negated error number: the result then holds nothing. EACCES where the file is the kernel's own (<see cref="FileTree.IsOfKernel"/>) and the
    /// shared directory is not: by /proc or /sys a guest could harm the host, and this process first of all. ESTALE for a directory that the host has moved out of the shared one.</param>
    public HeldDescriptor Hold(Inode inode, out int error)
    {
        HeldDescriptor held = HoldForStatus(inode, out error);
        if (error < 0)
            return held;
        error = CheckReach(inode, in held);
        if (error == 0)
            return held;
        held.Dispose();
        return default;
    }

    // Whether the guest may work with it: 0, or a negated error number.
    private int CheckReach(Inode inode, in HeldDescriptor held)
    {
        // Landlock of Linux 6.18 allows all in such a directory, if the rule is for the mount's root.
        if (inode.IsDirectory && !FileTree.IsBelowItsMount(in held))
            return -Errnos.Estale;
        if (inode.IsOfStorage || inode.Identity.Device == Root.Identity.Device)
            return 0;
        if (FileTree.IsOfKernel(in held))
            return -Errnos.Eacces;
        inode.IsOfStorage = true;
        return 0;
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
        HeldDescriptor held = default;
        ReleasedDescriptors released = default;
        lock (_lock)
        {
            if (inode.Path is { } other)
            {
                // Another thread was faster. A rename, for example, opens the file by its old name.
                held = other.Hold();
                error = 0;
                if (opened is not null)
                    released.Add(opened);
            }
            else if (opened is not null)
            {
                held = opened.Hold();
                // One that the guest has forgotten, and that is only on the way to another, is closed at once.
                if (_byId.GetValueOrDefault(inode.Id) == inode)
                    _open.Add(inode, opened, ref released);
                else
                    released.Add(opened);
            }
        }
        released.Close();
        return held;
    }

    /// <summary>The guest is about to take a name away, or to rename what has it: a file that it knows by that name stays open, because the name does not lead to it afterwards.
    /// One with another name by which the guest saw it (a hard link) need not: that leads to it from now on. If the name stays after all, or there is a new one,
    /// <see cref="Named"/> has to be called.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="directory">The same, open.</param>
    /// <param name="name">The name.</param>
    /// <param name="isOnlyForOpen">Whether a file or a symbolic link is let go of that the guest has not open: it is of no use without a name, and one of a server's (NFS) that is open by the name that is
    /// taken away gets another one instead, in a directory that then cannot be removed.</param>
    /// <returns>0, or a negated error number: the file would be lost, so its name has to stay.</returns>
    public int Pin(Inode parent, in HeldDescriptor directory, ReadOnlySpan<byte> name, bool isOnlyForOpen = false)
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
        Inode? otherParent = null;
        byte[] otherName = [];
        ReleasedDescriptors released = default;
        lock (_lock)
        {
            bool isKnown = error == 0 && _byIdentity.TryGetValue(InodeIdentity.Of(in status), out inode) && IsSame(inode, in status);
            if (isKnown && inode!.IsNamedOtherwise(parent, name))
                SetOtherName(inode, null, []);
            bool losesName = isKnown && (inode!.IsNamed(parent, name) || !HasOtherNames(in status));
            // Nothing leads to what is below one that is only kept for that, unless it gets another name.
            if (losesName && inode!.Lookups == 0)
                Replace(ref inode.Parent, null);
            isKnown = isKnown && inode!.Lookups > 0;
            losesName = losesName && isKnown;
            if (losesName && HasOtherNames(in status))
                (otherParent, otherName) = (inode!.OtherParent, inode.OtherName);
            if (losesName && !(isOnlyForOpen && inode!.Type is FileStatus.RegularFile or FileStatus.SymbolicLink && inode.FirstOpen is null))
                inode!.IsPinned = true;
            if (isKnown && inode!.IsPinned && inode.Path is null)
                _open.Add(inode, path, ref released);
            else
                released.Add(path);
            // It may have been opened by this name.
            if (isKnown && !inode!.IsPinned)
                _open.Remove(inode, ref released);
        }
        released.Close();
        if (otherParent is not null)
            UseOtherName(inode!, parent, name, otherParent, otherName);
        return error;
    }

    // Called outside of the lock, because it asks the host. If another thread has changed the names meanwhile, its change counts.
    private void UseOtherName(Inode inode, Inode parent, ReadOnlySpan<byte> name, Inode otherParent, byte[] otherName)
    {
        using HeldDescriptor directory = HoldForStatus(otherParent, out int error);
        if (error < 0 || FileTree.GetStatus(in directory, otherName, out FileStatus status) < 0)
            return;
        ReleasedDescriptors released = default;
        lock (_lock)
        {
            if (!IsSame(inode, in status) || !inode.IsNamed(parent, name) || !inode.IsNamedOtherwise(otherParent, otherName))
                return;
            inode.IsPinned = false;
            Move(inode, otherParent, otherName, keepsName: false);
            _open.Remove(inode, ref released);
        }
        released.Close();
    }

    /// <summary>Closes descriptors that are not needed, because there are none to be had any more.</summary>
    /// <returns>Whether there were some.</returns>
    public bool Shrink()
    {
        ReleasedDescriptors released = default;
        bool isSmaller;
        lock (_lock)
            isSmaller = _open.Shrink(ref released);
        released.Close();
        return isSmaller;
    }

    // Outside of the lock: it may take long. By its name first, then by an opening that the guest has.
    private int OpenAgain(Inode inode, out FileDescriptor? path)
    {
        // A directory of the way that is open leads to it even if the host has renamed that. Once more, because another thread may rename one while this one walks: it has that open
        // meanwhile. And from the root, where the host has moved the file from one directory to another that has the name now.
        int result = OpenSame(inode, isFromRoot: false, out path);
        if (result == -Errnos.Estale)
            result = OpenSame(inode, isFromRoot: false, out path);
        if (result is -Errnos.Estale or -Errnos.Eacces)
            result = OpenSame(inode, isFromRoot: true, out path);
        return result < 0 && OpenByHandle(inode, out path) == 0 ? 0 : result;
    }

    // What its name leads to, if that is the file still.
    private int OpenSame(Inode inode, bool isFromRoot, out FileDescriptor? path)
    {
        path = null;
        int result = OpenByName(inode, isFromRoot, out FileDescriptor? opened);
        if (result < 0)
            return result;
        using (HeldDescriptor held = opened!.Hold())
        {
            if (IsSame(inode, in held))
            {
                path = opened;
                return 0;
            }
        }
        opened.Dispose();
        return -Errnos.Estale;
    }

    private bool IsSame(Inode inode, in HeldDescriptor held)
    {
        if (FileTree.GetStatus(in held, out FileStatus status) < 0)
            return false;
        lock (_lock)
            return IsSame(inode, in status);
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

    // Opens what the names lead to, in pieces that are paths short enough: those from the root on, or from the nearest directory that is open.
    private int OpenByName(Inode inode, bool isFromRoot, out FileDescriptor? opened)
    {
        opened = null;
        var names = new List<byte[]>();
        HeldDescriptor start;
        lock (_lock)
        {
            Inode each = inode;
            do
            {
                if (each.Parent is null || names.Count > MaxDepth)
                    return -Errnos.Estale;
                names.Add(each.Name);
                each = each.Parent;
            }
            while (each != Root && (isFromRoot || each.Path is null));
            each.WasUsed = true;
            start = each.Path!.Hold();
        }
        using HeldDescriptor first = start;
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
                int number = at is null ? FileTree.OpenBeneath(in first, path[..length], FileTree.PathOnly) : OpenBeneath(at, path[..length]);
                at?.Dispose();
                at = null;
                if (number < 0)
                    return ErrorOfName(number);
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

    // What the guest is told where a name cannot be opened: ESTALE if that leads nowhere, or the host's own trouble.
    private static int ErrorOfName(int error) =>
        error is -Errnos.Emfile or -Errnos.Enfile or -Errnos.Enomem or -Errnos.Eacces or -Errnos.Eio ? error : -Errnos.Estale;

    private static int OpenBeneath(FileDescriptor directory, ReadOnlySpan<byte> path)
    {
        using HeldDescriptor held = directory.Hold();
        return FileTree.OpenBeneath(in held, path, FileTree.PathOnly);
    }
}
