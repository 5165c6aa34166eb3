using System.Runtime.InteropServices;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>Makes files belong to the user of the guest who makes them: as long as this is not disposed, the calling thread makes files as that user. The files of a
/// process that is not root belong to its own user.</summary>
internal readonly ref struct Caller
{
    private readonly bool _isOther;
    private readonly bool _hasGroup;

    private Caller(bool isOther, bool hasGroup) => (_isOther, _hasGroup) = (isOther, hasGroup);

    /// <summary>Takes the identity on.</summary>
    /// <param name="server">The server; its maps translate the numbers of users and groups.</param>
    /// <param name="request">The request; its header names the user in the guest.</param>
    /// <param name="error">0, or a negated error number: nothing has changed then.</param>
    /// <param name="isAsked">Whether the host's kernel is asked what he may do, and the guest's has not checked it.</param>
    /// <param name="hasAllRights">Whether more is done than making a file, so that he needs all rights that the guest's kernel may have found him to have. The mode of what is made
    /// must then be one that does not depend on his rights.</param>
    public static Caller Become(FuseServer server, FuseRequest request, out int error, bool isAsked = false, bool hasAllRights = false)
    {
        error = 0;
        ref readonly FuseRequestHeader header = ref request.Header;
        if (!server.Options.Users.TryToHost(header.User, out uint user) || !server.Options.Groups.TryToHost(header.Group, out uint group))
        {
            error = -Errnos.Eperm;
            return default;
        }
        if (!server.ActsForUsers)
            return default;
        uint? more = FindGroup(request.Extensions, server.Options.Groups);
        if (more is not null && (error = ThreadIdentity.SetGroup(more)) < 0)
            return default;
        if (user == 0 && group == 0)
            return new Caller(isOther: false, hasGroup: more is not null);
        var caller = new Caller(isOther: true, hasGroup: more is not null);
        // The guest's kernel has checked what the user may do: it knows his groups, his capabilities and the ACLs.
        bool isRoot = header.User == 0;
        if (ThreadIdentity.TrySet(user, group) && (user == 0 || (isAsked && !isRoot) || server.TryKeepRights(isRoot || hasAllRights)))
            return caller;
        caller.Dispose();
        error = -Errnos.Eperm;
        return default;
    }

    /// <summary>The thread is itself again.</summary>
    public void Dispose()
    {
        // A thread that is stuck with the wrong user id is unsafe: end the process.
        if (_isOther && !ThreadIdentity.TrySet(0, 0))
            Environment.FailFast("a thread cannot take its identity back");
        if (_hasGroup && ThreadIdentity.SetGroup(null) < 0)
            Environment.FailFast("a thread cannot give a group back");
    }

    // The group by which the new file's directory lets the caller in, where that is not his own (FUSE_EXT_GROUPS): struct fuse_supp_groups.
    private static uint? FindGroup(ReadOnlySpan<byte> extensions, IdMap groups)
    {
        while (extensions.Length >= FuseExtension.WireSize)
        {
            var extension = MemoryMarshal.Read<FuseExtension>(extensions);
            if (extension.Size < FuseExtension.WireSize || extension.Size > extensions.Length)
                return null;
            if (extension.Type == FuseExtension.Groups && extension.Size >= 16 && MemoryMarshal.Read<uint>(extensions[8..]) >= 1)
                return groups.TryToHost(MemoryMarshal.Read<uint>(extensions[12..]), out uint group) ? group : null;
            extensions = extensions[(int)extension.Size..];
        }
        return null;
    }
}

/// <summary>As long as this is not disposed, the calling thread does without CAP_FSETID: a write or a new size takes set-user-id and set-group-id bits away, as it does
/// for a user who does not own the file (FUSE_HANDLE_KILLPRIV_V2).</summary>
internal readonly ref struct WithoutSetId
{
    private readonly ulong _capabilities;

    private WithoutSetId(ulong capabilities) => _capabilities = capabilities;

    /// <summary>Gives it up, where <paramref name="isWanted"/> says so and the thread has it.</summary>
    /// <param name="server">Whose process it is.</param>
    /// <param name="isWanted">Whether the guest asks for it.</param>
    public static WithoutSetId Begin(FuseServer server, bool isWanted)
    {
        ulong all = server.Capabilities;
        if (!isWanted || (all & ThreadPrivileges.Fsetid) == 0 || ThreadPrivileges.Set(all & ~ThreadPrivileges.Fsetid, all) != 0)
            return default;
        return new WithoutSetId(all);
    }

    /// <summary>Takes it back.</summary>
    public void Dispose()
    {
        if (_capabilities != 0)
            _ = ThreadPrivileges.Set(_capabilities, _capabilities);
    }
}
