using System.Text;

namespace Vmm.Vhost.Native;

/// <summary>The rights that new files of this process do not get (umask(2)).</summary>
public static class ProcessUmask
{
    private const string Path = "/proc/self/status";
    private const string Name = "\nUmask:\t";   // proc_pid_status(5), since Linux 4.7
    private const int MostRead = 4096;          // it is the second line
    private const int AllRights = 0x1FF;        // 0777

    /// <summary>The umask 022, which most processes have: taken where the real one is not known.</summary>
    public const UnixFileMode Usual = UnixFileMode.GroupWrite | UnixFileMode.OtherWrite;

    /// <summary>Reads them without changing them, as umask(2) would; <see cref="Usual"/> where /proc does not tell.</summary>
    public static UnixFileMode Read()
    {
        try
        {
            using FileDescriptor file = FileDescriptor.Open(Path, OpenMode.ReadOnly);
            Span<byte> text = stackalloc byte[MostRead];
            return Parse(Encoding.Latin1.GetString(text[..Math.Max(0, file.TryRead(text))]));
        }
        catch (ErrnoException)
        {
            return Usual;
        }
    }

    /// <summary>The same by the text of the file.</summary>
    internal static UnixFileMode Parse(string status)
    {
        int start = status.IndexOf(Name, StringComparison.Ordinal), mask = 0;
        if (start < 0)
            return Usual;
        foreach (char digit in status.AsSpan(start + Name.Length))
        {
            if (digit is < '0' or > '7')
                break;
            mask = ((mask << 3) | (digit - '0')) & AllRights;
        }
        return (UnixFileMode)mask;
    }
}
