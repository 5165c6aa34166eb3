using Vmm.Vhost.Native.Confinement;

namespace Vmm.Cli.Backend;

/// <summary>The value of <c>--modcaps</c>, in virtiofsd's words: <c>-chown:-mknod</c> gives capabilities up, <c>+chown</c> keeps what is kept anyway.
/// Others are not kept, whatever it says: virtiofsd needs <c>+dac_read_search</c> for its file handles.</summary>
internal static class CapabilityListOption
{
    private const ulong Useful = ThreadPrivileges.Chown | ThreadPrivileges.DacOverride | ThreadPrivileges.Fowner | ThreadPrivileges.Fsetid | ThreadPrivileges.SetGid
        | ThreadPrivileges.SetUid | ThreadPrivileges.Mknod | ThreadPrivileges.Setfcap;

    // CAP_* of linux/capability.h, each at the place of its number.
    private static readonly string[] s_names =
    [
        "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin",
        "net_raw", "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time",
        "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon",
        "bpf", "checkpoint_restore",
    ];

    /// <summary>The capabilities that are given up, as bits of <see cref="ThreadPrivileges"/>.</summary>
    /// <param name="value">The value.</param>
    /// <param name="useless">What it wants to be kept although the back-end never needs it, as the value writes it.</param>
    /// <exception cref="UsageException">The value is no such list.</exception>
    public static ulong ParseGivenUp(OptionValue value, out IReadOnlyList<string> useless)
    {
        ulong givenUp = 0;
        var others = new List<string>();
        useless = others;
        foreach (string part in value.Text.Split(':'))
        {
            int number = part is ['+' or '-', ..] ? Array.IndexOf(s_names, part[1..].ToLowerInvariant()) : -1;
            if (number < 0)
                throw value.Refuse($"has '{part}' in it: write + or - and a capability, such as -mknod, and a colon before the next");
            ulong bit = 1UL << number;
            if (part[0] == '-')
                givenUp |= bit;
            else if ((Useful & bit) == 0)
                others.Add(part);
            else
                givenUp &= ~bit;
        }
        return givenUp;
    }
}
