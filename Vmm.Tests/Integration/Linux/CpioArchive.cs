using System.Globalization;
using System.Text;

namespace Vmm.Tests.Integration.Linux;

/// <summary>Writes an initramfs archive (Linux Documentation/driver-api/early-userspace/buffer-format.rst, "newc"). It may follow
/// another one.</summary>
internal sealed class CpioArchive(Stream output)
{
    private const int Alignment = 4;
    private const uint DirectoryMode = 0x41ed;   // drwxr-xr-x
    private const uint FileMode = 0x81ed;        // -rwxr-xr-x

    private uint _inode = 1000;
    private long _written;

    /// <summary>Adds a directory.</summary>
    public void AddDirectory(string name) => Add(name, DirectoryMode, "");

    /// <summary>Adds a file that may be executed.</summary>
    public void AddFile(string name, string text) => Add(name, FileMode, text);

    /// <summary>Ends the archive.</summary>
    public void End() => Add("TRAILER!!!", 0, "");

    private void Add(string name, uint mode, string text)
    {
        byte[] content = Encoding.UTF8.GetBytes(text);
        // inode, mode, uid, gid, links, mtime, size, device (2), special device (2), size of the name, checksum
        uint[] fields = [_inode++, mode, 0, 0, 1, 0, (uint)content.Length, 0, 0, 0, 0, (uint)name.Length + 1, 0];
        string header = "070701" + string.Concat(fields.Select(field => field.ToString("x8", CultureInfo.InvariantCulture)));
        Write(Encoding.ASCII.GetBytes(header + name + '\0'));
        Write(content);
    }

    private void Write(byte[] bytes)
    {
        output.Write(bytes);
        _written += bytes.Length;
        for (; _written % Alignment != 0; _written++)
            output.WriteByte(0);
    }
}
