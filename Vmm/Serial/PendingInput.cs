using Vmm.Devices.Platform;

namespace Vmm.Serial;

/// <summary>Input that was read and that the serial port has no room for yet. For one thread.</summary>
internal sealed class PendingInput
{
    private readonly byte[] _bytes = new byte[4096];
    private int _first;
    private int _end;

    /// <summary>Whether everything was delivered.</summary>
    public bool IsEmpty => _first == _end;

    /// <summary>Whether <see cref="Room"/> is not empty: whether to read more.</summary>
    public bool HasRoom => _end - _first < _bytes.Length;

    /// <summary>Where the next bytes are to be read into; then call <see cref="Append"/>.</summary>
    public Span<byte> Room
    {
        get
        {
            _bytes.AsSpan(_first, _end - _first).CopyTo(_bytes);
            (_first, _end) = (0, _end - _first);
            return _bytes.AsSpan(_end);
        }
    }

    /// <summary>Adds the first <paramref name="count"/> bytes of <see cref="Room"/>.</summary>
    public void Append(int count) => _end += count;

    /// <summary>Gives <paramref name="uart"/> what it takes.</summary>
    public void DeliverTo(Uart16550 uart)
    {
        if (!IsEmpty)
            _first += uart.Receive(_bytes.AsSpan(_first, _end - _first));
    }
}
