namespace Vmm.Guest;

/// <summary>Finds out whether the user leaves: Ctrl-] three times, one directly after the other.</summary>
internal struct EscapeKey
{
    private const byte Key = 0x1D;      // Ctrl-]
    private const int Times = 3;

    private int _count;

    /// <summary>Takes note of what was typed. All of it is the guest's, too: a program there may use the key.</summary>
    /// <returns>Whether the user leaves.</returns>
    public bool Note(ReadOnlySpan<byte> typed)
    {
        foreach (byte value in typed)
        {
            _count = value == Key ? _count + 1 : 0;
            if (_count == Times)
                return true;
        }
        return false;
    }
}
