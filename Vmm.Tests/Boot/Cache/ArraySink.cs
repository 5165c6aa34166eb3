using Vmm.Boot.Payload;

namespace Vmm.Tests.Boot.Cache;

/// <summary>Keeps an unpacked kernel in an array.</summary>
internal sealed class ArraySink(int length) : IPayloadSink
{
    public byte[] Bytes { get; } = new byte[length];

    public void Write(int position, ReadOnlySpan<byte> bytes) => bytes.CopyTo(Bytes.AsSpan(position));
}
