namespace Vmm.Devices.Backends.FileSystem;

/// <summary>What client and server agree on by FUSE_INIT (FUSE_* of linux/fuse.h): bits 32 and up are in the second word of flags.</summary>
[Flags]
internal enum FuseFlags : ulong
{
    None = 0,
    AsyncRead = 1UL << 0,
    PosixLocks = 1UL << 1,
    AtomicTruncate = 1UL << 3,
    BigWrites = 1UL << 5,
    DontMask = 1UL << 6,
    FlockLocks = 1UL << 10,
    AutoInvalidateData = 1UL << 12,
    ReadDirectoryPlus = 1UL << 13,
    ReadDirectoryPlusAuto = 1UL << 14,
    AsyncDirectIo = 1UL << 15,
    WritebackCache = 1UL << 16,
    ParallelDirectoryOperations = 1UL << 18,
    PosixAcl = 1UL << 20,
    MaxPages = 1UL << 22,
    MapAlignment = 1UL << 26,
    Submounts = 1UL << 27,
    HandleKillPrivileges2 = 1UL << 28,
    SetXattrExtension = 1UL << 29,
    InitExtension = 1UL << 30,
    SecurityContext = 1UL << 32,
    InodeDax = 1UL << 33,
    CreateSupplementaryGroup = 1UL << 34,
    DirectIoAllowMmap = 1UL << 36,
}
