namespace Vmm.Devices.Backends.Vsock;

/// <summary>Flow control of one connection (VIRTIO 1.2 §5.10.6.3): how much each side may still send. All counts are modulo 2^32, and the
/// guest's are only claims: whatever it says, we send no more than what it said it has room for, and it may not send more than ours.</summary>
internal struct VsockCredit
{
    /// <summary>Our room for data of the guest's, in bytes: what a host program that does not read may cost.</summary>
    public const int Room = 128 * 1024;

    private uint _guestRoom;
    private uint _guestForwarded;
    private uint _sent;
    private uint _forwarded;
    private uint _forwardedTold;

    /// <summary>Bytes that may be sent to the guest now.</summary>
    public readonly uint Available
    {
        get
        {
            // More forwarded than sent is a lie that would give room beyond all bounds: the difference is then large, and nothing is left.
            uint underway = _sent - _guestForwarded;
            return underway < _guestRoom ? _guestRoom - underway : 0;
        }
    }

    /// <summary>Whether the guest should be told of room that it does not know of yet: half of it was given back.</summary>
    public readonly bool ShouldTell => _forwarded - _forwardedTold >= Room / 2;

    /// <summary>Takes note of what a packet of the guest's says of its room.</summary>
    public void Note(in VsockHeader header)
    {
        _guestRoom = header.BufferAllocation;
        _guestForwarded = header.ForwardCount;
    }

    /// <summary>Tells the guest of ours.</summary>
    public void Tell(ref VsockHeader header)
    {
        header.BufferAllocation = Room;
        header.ForwardCount = _forwardedTold = _forwarded;
    }

    /// <summary>So much was sent to the guest.</summary>
    public void Sent(int count) => _sent += (uint)count;

    /// <summary>So much of the guest's data needs room no more.</summary>
    public void Forwarded(int count) => _forwarded += (uint)count;
}
