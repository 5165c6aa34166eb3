using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Vhost.Native;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Vhost.User;

/// <summary>A message that was received: its header, its payload, and the descriptors that came with it, which are closed with it unless
/// they are taken out. Closing them, also those that were taken out, never waits for the peer.</summary>
public sealed class VhostUserMessage : IDisposable
{
    private readonly List<FileDescriptor> _descriptors;

    internal VhostUserMessage(in VhostUserHeader header, byte[] payload, List<FileDescriptor> descriptors)
    {
        Header = header;
        Bytes = payload;
        _descriptors = descriptors;
    }

    /// <summary>The header; its version is 1 and its size that of <see cref="Payload"/>.</summary>
    public VhostUserHeader Header { get; }

    /// <summary>The payload.</summary>
    public ReadOnlySpan<byte> Payload => Bytes;

    /// <summary>How many descriptors it (still) has.</summary>
    public int DescriptorCount => _descriptors.Count;

    private byte[] Bytes { get; }

    /// <summary>The payload from byte <paramref name="offset"/> on as a <typeparamref name="T"/>.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is too short: its size is to be checked before.</exception>
    public T Read<T>(int offset = 0)
        where T : unmanaged
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(Unsafe.SizeOf<T>(), Bytes.Length - offset, nameof(offset));
        return MemoryMarshal.Read<T>(Payload[offset..]);
    }

    /// <summary>Takes the first descriptor out, which then is the caller's to close.</summary>
    /// <returns>Null if there is none (left).</returns>
    public FileDescriptor? TakeDescriptor()
    {
        if (_descriptors.Count == 0)
            return null;
        FileDescriptor first = _descriptors[0];
        _descriptors.RemoveAt(0);
        return first;
    }

    /// <summary>Closes the descriptors that nobody took.</summary>
    public void Dispose()
    {
        foreach (FileDescriptor descriptor in _descriptors)
            descriptor.Dispose();
        _descriptors.Clear();
    }
}
