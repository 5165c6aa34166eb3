namespace Vmm.Vhost.User.Frontend;

public sealed partial class VhostUserFrontend
{
    private byte[]? _config;     // as the driver sees it
    private byte[]? _original;   // as the back-end gave it, before the driver wrote to it
    private bool[] _written = [];

    /// <summary>Whether the back-end gave a configuration space.</summary>
    public bool HasConfig => _config is not null;

    /// <summary>Gives the configuration space as the back-end said it last: nobody is asked. Zeros where it gave none.</summary>
    /// <param name="config">Filled from the beginning of the space on.</param>
    /// <exception cref="ObjectDisposedException">The front-end is disposed.</exception>
    public void ReadConfig(Span<byte> config)
    {
        lock (_options.Sync)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            config.Clear();
            ReadOnlySpan<byte> known = _config;
            known[..Math.Min(known.Length, config.Length)].CopyTo(config);
        }
    }

    /// <summary>The driver writes to the configuration space. A back-end that is away is told when it is back.</summary>
    /// <param name="offset">Where, in bytes; 0 or more.</param>
    /// <param name="data">What.</param>
    /// <returns>Whether it is written. If not, nothing has changed: the back-end refused it, the device is lost, or
    /// <paramref name="data"/> is empty or does not lie in the back-end's space.</returns>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="offset"/> is negative.</exception>
    /// <exception cref="ObjectDisposedException">The front-end is disposed.</exception>
    public bool WriteConfig(int offset, ReadOnlySpan<byte> data)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        lock (_options.Sync)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            if (_config is null || _lost is not null || data.IsEmpty || offset > _config.Length || data.Length > _config.Length - offset)
                return false;
            byte[] copy = data.ToArray();
            try
            {
                Do(peer => peer.Session.SetConfig(offset, copy), _options.ReplyTimeout);
            }
            catch (VhostUserException e)
            {
                s_log.Debug("{Error}", e.Message);
                return false;
            }
            copy.CopyTo(_config.AsSpan(offset));
            _written.AsSpan(offset, copy.Length).Fill(true);
            return true;
        }
    }

    private void TakeConfig(FrontendPeer peer)
    {
        if (peer.Config is null)
        {
            _config = _original = null;
            _written = [];
            return;
        }
        _original = [.. peer.Config];
        _config = [.. peer.Config];
        _written = new bool[_config.Length];
    }

    // Takes the configuration of a back-end that came back, where only bytes differ that may. The bytes that the driver wrote stay.
    // Returns whether anything differs.
    private bool TakeChangedConfig(FrontendPeer peer)
    {
        if (_original is null || peer.Config is null || _original.AsSpan().SequenceEqual(peer.Config))
            return false;
        byte[] before = _config!;
        TakeConfigAgain(peer);
        for (int i = 0; i < _written.Length; i++)
        {
            if (_written[i])
                _config![i] = before[i];
        }
        return true;
    }

    // Takes the configuration while a driver uses the device. The bytes that the driver wrote stay marked as its own: a back-end that begins anew does not have them. What they were
    // before stays known, too: a back-end that was there may say what the driver wrote, and a reset undoes that.
    private void TakeConfigAgain(FrontendPeer peer)
    {
        byte[]? before = _original;
        bool[] written = _written;
        TakeConfig(peer);
        for (int i = 0; i < written.Length; i++)
        {
            if (written[i])
                _original![i] = before![i];
        }
        _written = written;
    }

    // Whether the configuration is another than the one that the driver goes by.
    private bool HasOtherConfig(FrontendPeer peer)
    {
        if (_original is null)
            return false;
        if (peer.Config is null)
            return true;
        for (int i = 0; i < _original.Length; i++)
        {
            if (_original[i] != peer.Config[i] && !_written[i] && !IsChangeable(i))
                return true;
        }
        return false;
    }

    private bool IsChangeable(int offset)
    {
        foreach (Range range in _options.ChangeableConfig)
        {
            if (offset >= range.Start.GetOffset(_original!.Length) && offset < range.End.GetOffset(_original.Length))
                return true;
        }
        return false;
    }

    // A back-end that cannot be reset keeps what the last driver wrote, and the next driver must not be told something else: one that takes
    // a disk for write-through does not flush it.
    private void UndoWrites(FrontendPeer peer)
    {
        try
        {
            TellWritten(peer, _original);
        }
        catch (VhostUserException e) when (!e.IsConnectionLost)
        {
            s_log.Debug("{Error}", e.Message);
        }
    }

    // After a reset the configuration space is as the back-end gave it.
    private void ForgetWrites()
    {
        _config = _original?.ToArray();
        Array.Clear(_written);
    }

    // The back-end says that its configuration space changed. A device that sets DEVICE_NEEDS_RESET says it so, too (VIRTIO 1.2 §2.1.2).
    private void RefreshConfig()
    {
        Do(LookAtStatus, _options.ReplyTimeout);
        if (_config is null)
            return;
        Do(peer =>
        {
            try
            {
                peer.RefreshConfig();
            }
            catch (VhostUserException e) when (!e.IsConnectionLost)
            {
                s_log.Warn("{Error}", e.Message);
                return;
            }
            TakeConfigAgain(peer);
            Events?.ConfigChanged();
        }, _options.ReplyTimeout);
    }

    private void LookAtStatus(FrontendPeer peer)
    {
        if (!HasStatus(peer))
            return;
        try
        {
            if ((peer.Session.GetStatus() & DeviceNeedsReset) != 0)
                Events?.NeedsReset();
        }
        catch (VhostUserException e) when (!e.IsConnectionLost)
        {
            s_log.Warn("{Error}", e.Message);
        }
    }

    // What the driver wrote, told to a back-end that has begun anew.
    private void RestoreConfig(FrontendPeer peer) => TellWritten(peer, _config);

    // The bytes that the driver wrote to, with the values that they have in config.
    private void TellWritten(FrontendPeer peer, byte[]? config)
    {
        for (int start = 0; start < _written.Length; start++)
        {
            int end = start;
            while (end < _written.Length && _written[end])
                end++;
            if (end > start)
                peer.Session.SetConfig(start, config.AsSpan(start, end - start));
            start = end;
        }
    }
}
