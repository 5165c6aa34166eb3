using Vmm.Vhost.Native;

namespace Vmm.Guest;

/// <summary>Tells the guest's agent what to do before it asks for the command (docs/agent.md): statements, each a word and its arguments, with a
/// null behind each.</summary>
internal sealed class GuestDescription
{
    private readonly List<byte> _text = [];
    private readonly List<string> _lines = [];

    /// <summary>The statements for a person to read, one a line.</summary>
    public IReadOnlyList<string> Lines => _lines;

    /// <summary>The bytes for the agent.</summary>
    public byte[] ToArray() => [.. _text];

    /// <summary>Loads a module, whose file is in the initramfs.</summary>
    public void Module(string path) => Add("module", path, "");

    /// <summary>Credits the guest's random numbers with <paramref name="bytes"/>, 32 of them.</summary>
    public void Seed(ReadOnlySpan<byte> bytes) => Add("seed", Convert.ToHexString(bytes));

    /// <summary>Takes the directory with <paramref name="tag"/> as the root, or with <paramref name="isReadOnly"/> as what is below it.</summary>
    public void Root(string tag, bool isReadOnly) => Add("root", tag, Flag(isReadOnly));

    /// <summary>Takes a disk, such as vda, in the same way; <paramref name="type"/> is the file system on it.</summary>
    public void Disk(string device, string type, bool isReadOnly) => Add("disk", device, type, Flag(isReadOnly));

    /// <summary>Puts memory above the root, for what is written.</summary>
    /// <param name="size">How much, as for tmpfs; empty for half of the guest's.</param>
    public void Overlay(string size) => Add("overlay", size);

    /// <summary>Goes into the root, and mounts what every system has.</summary>
    public void Enter() => Add("enter");

    /// <summary>Mounts a directory of the host.</summary>
    public void Bind(string tag, string directory, bool isReadOnly) => Add("bind", tag, directory, Flag(isReadOnly));

    /// <summary>Gives network interface <paramref name="name"/> an address.</summary>
    /// <param name="name">Such as eth0.</param>
    /// <param name="address">IPv4, with its prefix.</param>
    /// <param name="gateway">By which others are reached; empty for none.</param>
    public void Address(string name, string address, string gateway) => Add("address", name, address, gateway);

    /// <summary>Has names resolved by <paramref name="address"/>.</summary>
    public void Resolver(string address) => Add("resolver", address);

    /// <summary>Has the agent speak with the host over a console, such as hvc0, and not over vsock.</summary>
    public void Console(string name) => Add("console", name);

    /// <summary>Sets the host name.</summary>
    public void Name(string name) => Add("name", name);

    private static string Flag(bool isOn) => isOn ? "1" : "0";

    private void Add(params ReadOnlySpan<string> words)
    {
        _lines.Add(string.Join(' ', words!));
        foreach (string word in words)
        {
            if (word.Contains('\0', StringComparison.Ordinal))
                throw new UsageException($"'{word.Replace('\0', ' ')}' has a null character in it, which no path can have");
            _text.AddRange(ByteText.Encode(word));
            _text.Add(0);
        }
    }
}
