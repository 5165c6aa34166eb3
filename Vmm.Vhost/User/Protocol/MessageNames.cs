using System.Text;

namespace Vmm.Vhost.User.Protocol;

/// <summary>The names of messages as the specification and every other implementation's log have them.</summary>
internal static class MessageNames
{
    /// <summary>Such as "SET_MEM_TABLE"; the number of a message that has none.</summary>
    public static string WireName(this VhostUserRequest request) => Name(request.ToString());

    /// <summary>Such as "CONFIG_CHANGE"; the number of a message that has none.</summary>
    public static string WireName(this VhostUserBackendRequest request) => Name(request.ToString());

    private static string Name(string member)
    {
        var name = new StringBuilder();
        foreach (char letter in member)
        {
            if (char.IsAsciiLetterUpper(letter) && name.Length > 0)
                name.Append('_');
            name.Append(char.ToUpperInvariant(letter));
        }
        return name.ToString();
    }
}
