using System.Globalization;
using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>The initramfs of a test guest: the agent as its init, the modules that the kernel needs, and the description of what to do. It is a file
/// in memory, which is gone with this process.</summary>
internal sealed class GuestInitramfs : IDisposable
{
    private const string AgentResource = "vmm-agent";
    private const string AgentPath = "/init";
    private const string DescriptionPath = "/description";
    private const int Executable = 0x1ED;       // 0755
    private const int UsualSize = 4 << 20;      // Debian's kernels take 2 to 3 MiB: a buffer that grows is copied again and again

    private readonly List<string> _list = [];
    private readonly FileDescriptor _file;

    /// <summary>Writes it.</summary>
    /// <param name="modules">The modules, in the order in which they load.</param>
    /// <param name="describe">Adds what is to be done once they are loaded.</param>
    /// <exception cref="VmmException">A module cannot be read.</exception>
    public GuestInitramfs(IReadOnlyList<ModuleFile> modules, Action<GuestDescription> describe)
    {
        using var archive = new MemoryStream(UsualSize);
        var writer = new InitramfsWriter(archive);
        AddFile(writer, AgentPath, ReadAgent(), Executable);
        writer.AddCharacterDevice("/dev/console", 5, 1);
        _list.Add("/dev/console");
        var description = new GuestDescription();
        for (int i = 0; i < modules.Count; i++)
        {
            if (modules[i].TryRead() is not byte[] content)
                continue;
            string path = string.Create(CultureInfo.InvariantCulture, $"/modules/{i:000}-{modules[i].Name}.ko");
            AddFile(writer, path, content);
            description.Module(path);
        }
        describe(description);
        AddFile(writer, DescriptionPath, description.ToArray());
        writer.End();
        Description = description.Lines;
        _file = MemFd.Create("initramfs", (ulong)archive.Length);
        try
        {
            _file.WriteAll(archive.GetBuffer().AsSpan(0, (int)archive.Length), "the initramfs");
        }
        catch
        {
            _file.Dispose();
            throw;
        }
    }

    /// <summary>Where it can be opened.</summary>
    public string Path => $"/proc/self/fd/{_file.Number}";

    /// <summary>The files in it, each with its size.</summary>
    public IReadOnlyList<string> Files => _list;

    /// <summary>What the agent is told to do, for a person to read.</summary>
    public IReadOnlyList<string> Description { get; }

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

    private void AddFile(InitramfsWriter writer, string path, ReadOnlySpan<byte> content, int mode = 0x1A4)
    {
        writer.AddFile(path, content, mode);
        _list.Add($"{path} ({content.Length} bytes)");
    }

    internal static byte[] ReadAgent()
    {
        using Stream stream = typeof(GuestInitramfs).Assembly.GetManifestResourceStream(AgentResource)
            ?? throw new InvalidOperationException("vmm was built without its agent");
        byte[] program = new byte[stream.Length];
        stream.ReadExactly(program);
        return program;
    }
}
