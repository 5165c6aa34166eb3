using System.Diagnostics;
using System.Globalization;

namespace Vmm.Tests.Devices.Backends.Block;

/// <summary>A disk image of random bytes that goes away with the test.</summary>
internal sealed class Image : IDisposable
{
    public const int Size = 1 << 20;

    private readonly string _path;

    public Image(int size = Size, string? directory = null)
    {
        Original = new byte[size];
        new Random(size).NextBytes(Original);
        _path = System.IO.Path.Combine(directory ?? System.IO.Path.GetTempPath(), System.IO.Path.GetRandomFileName());
        File.WriteAllBytes(_path, Original);
    }

    public string Path => _path;

    /// <summary>What it was filled with.</summary>
    public byte[] Original { get; }

    /// <summary>What is in it.</summary>
    public byte[] Content
    {
        get
        {
            // Without .NET's lock, which a disk's would refuse.
            using var file = Vmm.Vhost.Native.RegularFile.OpenRead(_path);
            var content = new byte[file.Length];
            file.Read(content, 0);
            return content;
        }
    }

    /// <summary>The bytes that it takes on the disk.</summary>
    public long Allocated
    {
        get
        {
            using Process stat = Process.Start(new ProcessStartInfo("stat", ["-c", "%b", _path]) { RedirectStandardOutput = true })!;
            string blocks = stat.StandardOutput.ReadToEnd();
            stat.WaitForExit();
            return 512 * long.Parse(blocks, CultureInfo.InvariantCulture);
        }
    }

    /// <summary>Makes it longer or shorter, while others have it open.</summary>
    public void Resize(long size)
    {
        using var file = new FileStream(_path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
        file.SetLength(size);
    }

    public void Dispose() => File.Delete(_path);
}
