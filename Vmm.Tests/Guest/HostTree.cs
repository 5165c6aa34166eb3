using System.Text;
using Vmm.Tests.Boot;
using static Vmm.Tests.Boot.ElfBuilder;

namespace Vmm.Tests.Guest;

/// <summary>A directory that plays the root of a host, gone with the test.</summary>
internal sealed class HostTree : IDisposable
{
    private const int VersionText = 0x3000 / 16;    // somewhere in the setup sectors, from 0x200 on

    public string Root { get; } = Directory.CreateTempSubdirectory("vmm-test-").FullName;

    public static byte[] Image(string? release)
    {
        byte[] image = new BzImageBuilder { Payload = new byte[64] }.Build();
        if (release is not null)
        {
            U16(image, 0x20E, VersionText);
            Encoding.ASCII.GetBytes($"{release} (who@where) #1 SMP\0").CopyTo(image.AsSpan(0x200 + VersionText));
        }
        return image;
    }

    public string In(string path) => Path.Combine(Root, path);

    public string Add(string path, string content = "") => Add(path, Encoding.UTF8.GetBytes(content));

    public string Add(string path, byte[] content)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(In(path))!);
        File.WriteAllBytes(In(path), content);
        return In(path);
    }

    public string AddImage(string path, string? release) => Add(path, Image(release));

    public void Dispose() => Directory.Delete(Root, recursive: true);
}
