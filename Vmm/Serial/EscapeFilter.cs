namespace Vmm.Serial;

/// <summary>Finds the keys that are meant for the VMM in what is typed: Ctrl-A, then x leaves, z stops the process as a shell's job,
/// h (or ?) prints help, a (or Ctrl-A again) sends one Ctrl-A to the guest; any other key after Ctrl-A is dropped.</summary>
internal sealed class EscapeFilter(Action quit, Action help, Action stop)
{
    private const byte CtrlA = 0x01;

    private bool _escaped;

    /// <summary>What help prints.</summary>
    public static ReadOnlySpan<byte> HelpText =>
        "\r\nCtrl-A x  leave: the machine is switched off at once\r\nCtrl-A z  stop the machine, back to the shell: fg goes on\r\nCtrl-A h  this help\r\nCtrl-A a  send Ctrl-A to the guest\r\n"u8;

    /// <summary>Filters <paramref name="keys"/> in place; a sequence may span calls.</summary>
    /// <returns>How many bytes are left for the guest, from the first.</returns>
    public int Filter(Span<byte> keys)
    {
        int kept = 0;
        foreach (byte key in keys)
        {
            if (!_escaped)
            {
                if (key == CtrlA)
                    _escaped = true;
                else
                    keys[kept++] = key;
                continue;
            }
            _escaped = false;
            switch (key)
            {
                case (byte)'x':
                    quit();
                    break;
                case (byte)'z':
                    stop();
                    break;
                case (byte)'h' or (byte)'?':
                    help();
                    break;
                case (byte)'a' or CtrlA:
                    keys[kept++] = CtrlA;
                    break;
                default:
                    break;
            }
        }
        return kept;
    }
}
