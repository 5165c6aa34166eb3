namespace Vmm.Devices.Backends.Block;

/// <summary>Whether a driver may rely on a write that is acknowledged (write-through), or only on a flush behind it. The driver chooses, by its
/// features and by <c>writeback</c> of the configuration space (VIRTIO 1.2 §5.2.5, §5.2.6.2). Its choice ends when the device is reset or
/// when it accepts other features: not when a connection ends, because the front-end that comes back (QEMU's) does not repeat it.</summary>
/// <param name="rings">How many rings the device has.</param>
internal sealed class BlockWriteCache(int rings)
{
    private const ulong Cache = BlockFeatures.Flush | BlockFeatures.WriteCacheSwitch;

    private readonly bool[] _hasRun = new bool[rings];
    private ulong? _accepted;       // null until the driver has said
    private bool _isWriteThrough;
    private bool _isKnown;          // this process has seen the driver choose, or begin

    /// <summary>Whether a write is only done when it is on the disk.</summary>
    public bool IsWriteThrough => Volatile.Read(ref _isWriteThrough);

    /// <summary>The driver accepts features. A driver without flushes cannot make a write last (VIRTIO 1.2 §5.2.5).</summary>
    public void Accept(ulong features)
    {
        if (_accepted is not ulong before || ((features ^ before) & Cache) != 0)
        {
            _isKnown |= _accepted is not null;
            Volatile.Write(ref _isWriteThrough, (features & BlockFeatures.Flush) == 0);
        }
        _accepted = features;
    }

    /// <summary>The driver writes <c>writeback</c>.</summary>
    /// <returns>False if it may not, or if the value is none.</returns>
    public bool TrySet(byte writeback)
    {
        if (writeback > 1 || !CanSwitch)
            return false;
        _isKnown = true;
        Volatile.Write(ref _isWriteThrough, writeback == 0);
        return true;
    }

    /// <summary>A ring starts. Where it goes on with what another process began, that process knew what the driver chose, and this one does not:
    /// it writes through, which is right for either choice.</summary>
    /// <returns>Whether it writes through for this reason.</returns>
    public bool StartRing(int index, bool isContinued)
    {
        bool isGuessed = isContinued && !_hasRun[index] && !_isKnown && CanSwitch && !_isWriteThrough;
        _hasRun[index] = true;
        if (isGuessed)
            Volatile.Write(ref _isWriteThrough, true);
        return isGuessed;
    }

    /// <summary>The device is reset.</summary>
    public void Reset()
    {
        _accepted = null;
        _isKnown = true;
        Volatile.Write(ref _isWriteThrough, false);
    }

    private bool CanSwitch => ((_accepted ?? 0) & BlockFeatures.WriteCacheSwitch) != 0;
}
