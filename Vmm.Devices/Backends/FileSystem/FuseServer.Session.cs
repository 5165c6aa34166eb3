using System.Runtime.InteropServices;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>What client and server agree on.</content>
internal sealed partial class FuseServer
{
    /// <summary>The version that is spoken here; a client of 7.31 or later does without what it does not know.</summary>
    public const uint Major = 7, Minor = 39;

    /// <summary>The most bytes of a read or a write: 256 pages, which a queue of 1024 descriptors has room for.</summary>
    public const uint MaxTransfer = 1 << 20;

    private const uint OldestMinor = 31;    // the first with virtio-fs
    private const ushort MaxBackground = 256;
    private const int PageShift = 12, MapShift = 21;

    private TimeSpan KeepTime =>
        Options.KeepTime ?? Options.Cache switch { FileSystemCache.Auto => TimeSpan.FromSeconds(1), FileSystemCache.Never => TimeSpan.Zero, _ => TimeSpan.FromDays(1) };

    private ulong KeepSeconds => (ulong)KeepTime.Ticks / TimeSpan.TicksPerSecond;

    private uint KeepNanoseconds => (uint)(KeepTime.Ticks % TimeSpan.TicksPerSecond * TimeSpan.NanosecondsPerTick);

    private FuseFlags Offered => FuseFlags.AsyncRead | FuseFlags.AtomicTruncate | FuseFlags.BigWrites | FuseFlags.AsyncDirectIo | FuseFlags.ParallelDirectoryOperations
        | FuseFlags.MaxPages | FuseFlags.InitExtension | FuseFlags.SetXattrExtension | FuseFlags.CreateSupplementaryGroup
        | (HasHostLocks(isFlock: false) ? FuseFlags.PosixLocks : 0)
        | (HasHostLocks(isFlock: true) ? FuseFlags.FlockLocks : 0)
        | (Options.Cache == FileSystemCache.Auto ? FuseFlags.AutoInvalidateData : 0)
        | (Options.ReadDirectoryPlus ? FuseFlags.ReadDirectoryPlus | FuseFlags.ReadDirectoryPlusAuto : 0)
        | (Options.AllowMmap ? FuseFlags.DirectIoAllowMmap : 0)
        | (Options.Writeback ? FuseFlags.WritebackCache : 0)
        | (Options.AnnounceSubmounts ? FuseFlags.Submounts : 0)
        | (_window is not null ? FuseFlags.MapAlignment | FuseFlags.InodeDax : 0)
        // What a guest writes to a file that it has mapped is not seen here: its kernel has to take the bits away.
        | (Options.KillPrivileges && _window is null ? FuseFlags.HandleKillPrivileges2 : 0)
        | (Options.Xattr && Options.SecurityLabel ? FuseFlags.SecurityContext : 0)
        | (Options.Xattr && Options.PosixAcl && Map.KeepsAcls ? FuseFlags.PosixAcl | FuseFlags.DontMask : 0);

    private long Initialize(FuseRequest request)
    {
        if (request.ArgumentsLength < FuseInitRequest.ShortSize)
            return -Errnos.Einval;
        // Clients before FUSE_INIT_EXT have 16 bytes.
        var init = default(FuseInitRequest);
        request.TryTakeBytes((uint)Math.Min(request.ArgumentsLength, Marshal.SizeOf<FuseInitRequest>()), out ReadOnlySpan<byte> bytes);
        bytes.CopyTo(MemoryMarshal.AsBytes(new Span<FuseInitRequest>(ref init)));
        if (init.Major < Major || (init.Major == Major && init.Minor < OldestMinor))
        {
            s_log.Warn("{Directory}: the guest speaks FUSE {Major}.{Minor}: 7.31 is needed (Linux 5.4)", Options.Directory, init.Major, init.Minor);
            return -Errnos.Eproto;
        }
        // A client that is newer asks again, with a version that both know.
        if (init.Major > Major)
            return request.Reply(new FuseInitReply { Major = Major, Minor = Minor });
        EndSession();
        ulong client = init.Flags | ((FuseFlags)init.Flags & FuseFlags.InitExtension) switch { 0 => 0, _ => (ulong)init.Flags2 << 32 };
        _flags = Offered & (FuseFlags)client;
        _isReady = true;
        Begin(_inodes.Session);
        s_log.Debug("{Directory}: FUSE {Major}.{Minor} with {Flags}", Options.Directory, init.Major, init.Minor, _flags);
        return request.Reply(new FuseInitReply
        {
            Major = Major,
            Minor = Minor,
            MaxReadAhead = init.MaxReadAhead,
            Flags = (uint)_flags,
            Flags2 = (uint)((ulong)_flags >> 32),
            MaxBackground = MaxBackground,
            CongestionThreshold = MaxBackground * 3 / 4,
            MaxWrite = MaxTransfer,
            TimeGranularity = 1,
            MaxPages = (ushort)(MaxTransfer >> PageShift),
            MapAlignment = MapShift,
        });
    }

    /// <summary>Whether the guest's kernel and this side agreed on <paramref name="flags"/>.</summary>
    internal bool Has(FuseFlags flags) => (_flags & flags) == flags;
}
