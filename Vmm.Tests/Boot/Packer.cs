using System.Buffers.Binary;
using System.Diagnostics;
using NUnit.Framework;

namespace Vmm.Tests.Boot;

/// <summary>Compresses as the kernel's build does (scripts/Makefile.lib), by the real tools.</summary>
internal static class Packer
{
    public static readonly string[] Formats = ["lz4", "gzip", "zstd", "xz", "lzma", "bzip2"];

    /// <summary>Packs <paramref name="content"/> and appends its size where the kernel's build does.</summary>
    public static byte[] Pack(string format, byte[] content)
    {
        byte[] packed = format switch
        {
            "lz4" => Run("lz4", "-l -9 -c", content),
            "gzip" => Run("gzip", "-n -f -9 -c", content),
            "zstd" => Run("zstd", "-22 --ultra -c", content),
            "xz" => Run("xz", "--check=crc32 --x86 --lzma2=dict=32MiB -c", content),
            "lzma" => Run("xz", "--format=lzma -9 -c", content),
            "bzip2" => Run("bzip2", "-9 -c", content),
            _ => throw new ArgumentException(format),
        };
        if (format == "gzip")
            return packed;
        byte[] size = new byte[4];
        BinaryPrimitives.WriteInt32LittleEndian(size, content.Length);
        return [.. packed, .. size];
    }

    public static byte[] Run(string tool, string arguments, byte[] input)
    {
        // By a file: a pipe in and one out at the same time would need a thread.
        using var source = new TempFile(input);
        var info = new ProcessStartInfo("/bin/sh", ["-c", $"exec {tool} {arguments} < \"$0\"", source.Path])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process? process = Start(info);
        using var output = new MemoryStream();
        process!.StandardOutput.BaseStream.CopyTo(output);
        process.WaitForExit();
        if (process.ExitCode == 127)
            Assert.Ignore($"{tool} is not installed");
        Assert.That(process.ExitCode, Is.Zero, () => $"{tool}: {process.StandardError.ReadToEnd()}");
        return output.ToArray();
    }

    private static Process? Start(ProcessStartInfo info) => Process.Start(info);
}
