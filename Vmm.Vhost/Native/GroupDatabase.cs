using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>The groups that this host knows by name (group(5), and what nsswitch.conf(5) adds to it).</summary>
public static unsafe partial class GroupDatabase
{
    private const int LargestRecord = 1 << 20;      // of a group with many members

    /// <summary>The number of the group <paramref name="name"/>; null if there is none of that name.</summary>
    public static uint? Find(string name)
    {
        if (name.Contains('\0', StringComparison.Ordinal))
            return null;
        for (int size = 4096; size <= LargestRecord; size *= 4)
        {
            byte[] room = new byte[size];
            Record record;
            Record* found;
            fixed (byte* text = FileDescriptor.NullTerminated(name), start = room)
            {
                // SAFETY: the name is null-terminated, the buffer is as long as is said, and both are pinned; what is found is the structure on the stack.
                int error = GetGroup(text, &record, start, (nuint)size, &found);
                if (error != Errnos.Erange)
                    return error == 0 && found != null ? record.Number : null;
            }
        }
        return null;
    }

    [LibraryImport("libc", EntryPoint = "getgrnam_r")]
    private static partial int GetGroup(byte* name, Record* record, byte* room, nuint size, Record** found);

    // struct group of grp.h.
    [StructLayout(LayoutKind.Sequential)]
    private struct Record
    {
        public byte* Name;
        public byte* Password;
        public uint Number;
        public byte** Members;
    }
}
