namespace Vmm.Vhost.Native.FileSystem;

/// <summary>Flags of pwritev2(2), in the numbers of linux/fs.h.</summary>
[Flags]
public enum WriteModes
{
    /// <summary>As the file was opened.</summary>
    None = 0,

    /// <summary>RWF_DSYNC: the bytes are on the disk when the call returns.</summary>
    DataSync = 2,

    /// <summary>RWF_SYNC: and all that is known of the file.</summary>
    Sync = 4,

    /// <summary>RWF_APPEND: the bytes go to the file's end.</summary>
    Append = 16,
}
